"""A user's mistake is one line that names the remedy, exit code 2, and leaves nothing behind."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from dadpo_bench.store import open_store
from tests.tiny import build_tiny_model


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def mistake(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a wrong command answers with."""
    result = call(*arguments)
    said = (result.stderr + capfd.readouterr().err).strip()
    assert result.exit_code == 2, (result.output, result.exception)
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert "Traceback" not in said
    assert not Path("results").exists()
    return said


def edited(recipe: Path, **changes: object) -> Path:
    recipe.write_text(json.dumps({**json.loads(recipe.read_text()), **changes}))
    return recipe


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["run", "dadp"], "did you mean 'dadpo'?"),
        (["run", "dadpo", "--recipe", "smollm2-135m-pruned"], "did you mean 'smollm2-135m-pruned20'?"),
        (["run", "dadpo", "--recipe", "none.yaml"], "no recipe file none.yaml"),
        (["run", "dadpo", "--judge", "pmy"], "did you mean 'pmi'?"),
        (["run", "dadpo", "--judge", "longer:x"], "takes no argument"),
        (["run", "dadpo", "--judge", "chat:gpt-4o"], "set OPENAI_API_KEY, or pass --judge pmi"),
        (["run", "dadpo", "--set", "seed"], "write it as dotted.key=value"),
        (["run", "dadpo", "--set", "teecher.model=x"], "did you mean 'teacher'?"),
        (["run", "dadpo", "--set", "prompts.train=many"], "prompts.train"),
        (["run", "dadpo", "--set", "methods.dadpo.beta_techer=1"], "did you mean 'beta_teacher'?"),
        (["run", "dadpo", "--set", "methods.dadpo.beta_teacher=-1"], "greater than or equal to 0"),
        (["run", "dadpo", "--set", "methods.sft.method=dpo"], "needs `sft"),
        (["run", "dadpo", "--set", "tasks={}"], "at least one held-out task"),
        (["run", "dadpo", "--set", "prompts.task=asistance"], "did you mean 'assistance'?"),
        (["run", "dadpo", "--set", "prompts.task=general"], "has no split 'train'"),
        (["run", "dadpo", "--until", "trian"], "did you mean 'train'?"),
        (["run", "dadpo", "--seeds", "0"], "--seeds"),
        (["run"], "METHOD"),
        (["show", "methods", "dado"], "did you mean"),
        (["list", "methds"], "methds"),
        (["leaderboard", "--store", "none.sqlite3"], "`dadpo-bench run` makes one"),
        (["check"], "`dadpo-bench run` makes one"),
        (["db", "upgrade", "--store", "none.sqlite3"], "`dadpo-bench run` makes one"),
    ],
)
def test_a_wrong_word_is_answered_with_the_remedy(
    arguments: list[str], remedy: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert remedy in mistake(capfd, *arguments)


def test_invalid_yaml_is_named_by_its_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text("name: x\nteacher: {model: [}\n")
    assert "line 2" in mistake(capfd, "run", "dadpo", "--recipe", "bad.yaml")


def test_a_bad_line_of_a_prompts_file_is_named_by_its_number(
    tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = json.dumps({"id": "a", "turns": ["Sea\u2028side?"]}, ensure_ascii=False)
    (tmp_path / "training.jsonl").write_text(f"{good}\n\n{{'id': 1}}\n")
    assert "training.jsonl, line 3: not valid JSON" in mistake(capfd, "run", "dadpo", "--recipe", tiny_recipe)


def test_a_prompt_without_a_turn_is_named_by_its_line(
    tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "training.jsonl").write_text('{"id": "a", "turns": []}\n')
    assert "line 1" in mistake(capfd, "run", "dadpo", "--recipe", tiny_recipe)


def test_held_out_prompts_among_the_training_prompts_are_refused(
    tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    held_out = (tmp_path / "held-out.jsonl").read_text()
    (tmp_path / "training.jsonl").write_text(held_out.split("\n")[0] + "\n")
    assert "shares 1 prompts with the training prompts" in mistake(capfd, "run", "dadpo", "--recipe", tiny_recipe)


def failed(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """As `mistake`, where the store had to be opened before the mistake could be seen."""
    result = call(*arguments)
    said = (result.stderr + capfd.readouterr().err).strip()
    assert result.exit_code == 2, (result.output, result.exception)
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    return said


def test_a_missing_model_directory_is_named(tiny_recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = edited(tiny_recipe, teacher={"model": "./none"})
    assert "no model directory './none'" in failed(capfd, "run", "dadpo", "--recipe", recipe, "--quiet")


def test_a_directory_without_weights_is_no_model(
    tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    recipe = edited(tiny_recipe, teacher={"model": "./empty"})
    assert "no *.safetensors weights" in failed(capfd, "run", "dadpo", "--recipe", recipe, "--quiet")


def test_a_model_without_a_chat_template_is_refused(
    tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bare = build_tiny_model(tmp_path / "bare", chat_template=None)
    recipe = edited(tiny_recipe, teacher={"model": str(bare)})
    assert "has no chat template" in failed(capfd, "run", "dadpo", "--recipe", recipe, "--quiet")


def test_a_hub_that_cannot_be_reached_names_the_way_around(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    recipe = edited(tiny_recipe, teacher={"model": "nobody/nothing"})
    said = failed(capfd, "run", "dadpo", "--recipe", recipe, "--quiet")
    assert "cannot fetch 'nobody/nothing'" in said
    assert "name a local directory" in said


def test_a_file_that_is_no_store_is_refused_and_kept(
    tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "junk.sqlite3").write_text("this is no database, but somebody's only copy of something")
    said = failed(capfd, "run", "dadpo", "--recipe", tiny_recipe, "--store", "junk.sqlite3")
    assert "no usable SQLite store" in said
    assert "only copy" in (tmp_path / "junk.sqlite3").read_text()


def test_a_truncated_store_is_refused(tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.sqlite3"
    open_store(str(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    path.write_bytes(path.read_bytes()[:5000])
    said = failed(capfd, "run", "dadpo", "--recipe", tiny_recipe, "--store", path)
    assert "no usable SQLite store" in said


def test_a_store_of_a_newer_version_is_refused(
    tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "newer.sqlite3"
    open_store(str(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    assert "newer dadpo-bench (schema 9999)" in failed(capfd, "run", "dadpo", "--recipe", tiny_recipe, "--store", path)


def test_a_store_in_a_directorys_place_is_refused(
    tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "is a directory" in failed(capfd, "run", "dadpo", "--recipe", tiny_recipe, "--store", tmp_path)


def test_a_store_below_a_file_is_refused(tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    said = failed(capfd, "run", "dadpo", "--recipe", tiny_recipe, "--store", tmp_path / "file" / "x.sqlite3")
    assert "choose another --store" in said
