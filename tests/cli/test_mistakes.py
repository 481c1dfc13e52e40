"""A user's mistake is one line that names the remedy, exit code 2, and leaves nothing behind."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from dadpo_bench.store import open_store
from tests.conftest import Run
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
        (["plan", "vicuna-7b-prune20"], "did you mean 'vicuna-7b-pruned20'?"),
        (["run", "dadpo", "--recipe", "none.yaml"], "no recipe file none.yaml"),
        (["run", "dadpo", "--recipe", "."], ". is a directory; name a recipe's YAML file"),
        (["run", "dadpo", "--judge", "pmy"], "did you mean 'pmi'?"),
        (["run", "dadpo", "--judge", "longer:x"], "takes no argument"),
        (["run", "dadpo", "--judge", "chat:gpt-4o"], "set OPENAI_API_KEY, or choose a judge without one, such as pmi"),
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
        (["run", "dadpo", "--seeds", "many"], "--seeds"),
        (["run", "dadpo", "--sed", "1"], "--seeds"),
        (["run", "dadpo", "--set", "tasks.asistance.prompts=2"], "did you mean 'assistance'?"),
        (["run", "dadpo", "--set", "methods.x.method=dadpoo"], "did you mean 'dadpo'?"),
        (["run", "dadpo", "--set", "seed=["], "not a valid value"),
        (["run", "dadpo", "--set", "seed=" + "[" * 5000], "not a valid value"),
        (["run", "dadpo", "--set", "teacher.model.name=x"], "'model' has no settings of its own"),
        (["run", "dadpo", "--judge", "longer", "--set", "judge=longer", "--set", "judge_settings.x=1"], "no settings"),
        (["run", "dadpo", "--template", "pairwise"], "judge 'pmi' takes no template; it takes max_tokens, model"),
        (["run", "dadpo", "--budget-usd", "2"], "judge 'pmi' takes no budget_usd"),
        (["run", "dadpo", "--judge", "gptscore", "--set", "judge_settings.modle=x"], "did you mean 'model'?"),
        (["run", "dadpo", "--judge", "longer", "--concurrency", "2"], "leave out concurrency"),
        (["run", "dadpo", "--judge", "chat:"], "judge chat.model"),
        (["run", "dadpo", "--judge", "chat"], "needs its model: chat:MODEL"),
        (["run", "dadpo", "--set", "methods={sft: {method: sft}, ../x: {method: dpo}}"], "pattern"),
        (["run", "dadpo", "--set", "methods.teacher.method=dpo"], "'teacher' is the name of a model"),
        (["run", "dadpo", "--set", "methods.sft.learning_rate=.inf"], "finite number"),
        (["run", "dadpo", "--set", "seed=99999999999999999999999"], "seed"),
        (["run", "dadpo", "--store", "sqlite+pysqlite:///x.sqlite3"], "sqlite:///PATH"),
        (["run", "dadpo", "--set", "student.prune.ratio=2"], "student.prune.ratio"),
        (["run", "dadpo", "--set", "student.prune.groups=-1"], "student.prune.groups"),
        (["run"], "METHOD"),
        (["list"], "tasks, methods, judges, recipes"),
        (["db"], "name a command"),
        (["rnu"], "rnu"),
        (["show", "recipes", "smollm2-135m"], "smollm2-135m-pruned20"),
        (["leaderboard", "--format", "xml"], "md"),
        (["check", "--alpha", "2"], "--alpha"),
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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- 1\n", "a recipe is a YAML mapping"),
        (b"", "a recipe is a YAML mapping"),
        (b"\xff\xfe", "not valid YAML"),
        (b"a: " + b"[" * 5000, "not valid YAML (nested too deeply)"),
        (b"a: !!python/object/apply:os.system ['touch pwned']\n", "line 1: not valid YAML"),
    ],
    ids=["a list", "empty", "no text", "deep", "code"],
)
def test_a_file_that_is_no_recipe_is_refused(
    content: bytes, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    assert said in mistake(capfd, "run", "dadpo", "--recipe", "bad.yaml")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1]", "line 2: fields by name expected, not a list"),
        ('{"id": "b"}', "line 2: no prompt is found; its fields: id; accepted are turns,"),
        ('{"id": 1, "turns": ["x"]}', "line 2: id: text expected, not a number"),
        ('{"id": "b", "turns": "x"}', "training.jsonl, line 2: turns: a list expected, not text"),
        ('{"id": "b", "turns": ["x"], "answer": "y"}', "line 2: answer: unknown setting"),
        ('{"id": "b", "turns": ["\\ud800"]}', "line 2: a \\ud800"),
        ("[" * 100_000, "line 2: not valid JSON (nested too deeply)"),
        ('{"id": "a", "turns": ["Tea?"]}', "a prompt occurs twice"),
        ('{"id": "b", "turns": ["x", "y"]}', "training prompts have one turn each"),
    ],
    ids=["list", "missing", "type", "string", "extra", "surrogate", "deep", "twice", "two turns"],
)
def test_a_line_that_is_no_training_prompt_is_refused(
    line: str, said: str, tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "training.jsonl").write_text('{"id": "a", "turns": ["Tea?"]}\n' + line + "\n")
    assert said in mistake(capfd, "run", "dadpo", "--recipe", tiny_recipe)


def test_a_prompts_file_that_is_not_there_is_named(
    tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "training.jsonl").unlink()
    assert "training.jsonl: No such file" in mistake(capfd, "run", "dadpo", "--recipe", tiny_recipe)


def test_a_prompts_file_in_another_encoding_is_refused(
    tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "training.jsonl").write_bytes('{"id": "a", "turns": ["Café?"]}\n'.encode("latin-1"))
    assert "training.jsonl: 'utf-8' codec" in mistake(capfd, "run", "dadpo", "--recipe", tiny_recipe)


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
    assert "shares 1 prompt with the training prompts" in mistake(capfd, "run", "dadpo", "--recipe", tiny_recipe)


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


@pytest.mark.parametrize("template", ["{% for x in", "{{ raise_exception('no') }}"])
def test_a_broken_chat_template_is_refused(
    template: str, tiny_recipe: Path, tiny_models: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = edited(tiny_recipe, teacher={"model": str(tiny_models[0]), "chat_template": template})
    assert "chat template cannot render" in failed(capfd, "run", "dadpo", "--recipe", recipe, "--quiet")


def test_a_prune_ratio_that_no_width_meets_names_those_that_are_met(
    tiny_recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = edited(tiny_recipe, student={"prune": {"ratio": 0.5}})
    assert "possible: 0.2" in failed(capfd, "run", "dadpo", "--recipe", recipe, "--quiet")


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


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_store_in_a_directorys_place_is_refused(
    dry: list[str], tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "is a directory" in failed(capfd, "run", "dadpo", "--recipe", tiny_recipe, "--store", tmp_path, *dry)


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("/dev/null", "no ordinary file"),
        ("/proc/x.sqlite3", "its folder must exist and be writable"),
        ("/proc/x/y.sqlite3", "choose another --store"),
        ("oracel://host/x", "a SQLite file or a PostgreSQL database"),
        ("postgresql://me:secret@127.0.0.1:1/x", "postgresql://"),
    ],
)
def test_a_place_where_no_store_can_be_is_refused(
    store: str, said: str, tiny_recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = failed(capfd, "run", "dadpo", "--recipe", tiny_recipe, "--store", store)
    assert said in answer
    assert "secret" not in answer


@pytest.mark.parametrize("target", ["/proc/x.sqlite3", "none/x.sqlite3", "."])
def test_a_place_where_nothing_can_be_published_is_refused(
    target: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    open_store("a.sqlite3").close()
    failed(capfd, "db", "publish", target, "--store", "a.sqlite3")


def test_the_program_itself_answers_with_one_line_and_code_2(bench: Run, tiny_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "training.jsonl").write_text("oops\n")
    for arguments in (["run", "dadp"], ["run", "dadpo", "--recipe", tiny_recipe]):
        result = bench(*arguments)
        assert result.returncode == 2
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held-out.jsonl", "recipe.yaml", "training.jsonl"]


def test_a_store_below_a_file_is_refused(tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    said = failed(capfd, "run", "dadpo", "--recipe", tiny_recipe, "--store", tmp_path / "file" / "x.sqlite3")
    assert "choose another --store" in said


def test_two_tasks_of_one_name_are_refused(
    tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "held-out.jsonl").write_text('{"id": "x", "turns": ["Else?"]}\n')
    recipe = edited(tiny_recipe, tasks={"held-out.jsonl": {}, "a/held-out.jsonl": {}})
    assert "two held-out tasks are called 'held-out'" in mistake(capfd, "run", "dadpo", "--recipe", recipe)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "generation_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"])
def test_a_broken_model_file_is_told_in_one_line(
    file: str, content: str, tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = build_tiny_model(tmp_path / "broken")
    (broken / file).write_text(content)
    recipe = edited(tiny_recipe, teacher={"model": str(broken)})
    assert "download or convert the model again" in failed(capfd, "run", "dadpo", "--recipe", recipe, "--quiet")


def test_a_template_that_leaves_out_what_is_said_is_refused_before_any_work(
    tiny_recipe: Path, tiny_models: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = edited(tiny_recipe, teacher={"model": str(tiny_models[0]), "chat_template": "x"})
    assert "leaves out what user or assistant say" in failed(capfd, "run", "dadpo", "--recipe", recipe, "--quiet")


@pytest.mark.parametrize("command", [["check", "--against"], ["leaderboard", "--store"], ["db", "upgrade", "--store"]])
@pytest.mark.parametrize("schema", ["CREATE TABLE somebodys (x)", "CREATE TABLE alembic_version (version_num)"])
def test_another_programs_database_is_refused_and_not_touched(
    command: list[str], schema: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(schema)
        connection.execute("CREATE TABLE runs (x)")
        connection.commit()
    open_store("results/local.sqlite3").close()
    said = failed(capfd, *command, path)
    assert "is another program's database" in said
    with closing(sqlite3.connect(path)) as connection:
        assert len(connection.execute("SELECT name FROM sqlite_master").fetchall()) == 2


def test_a_store_is_not_made_by_reading_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.sqlite3").write_bytes(b"")
    assert "is empty" in failed(capfd, "leaderboard", "--store", "empty.sqlite3")


def test_a_plan_for_a_file_that_is_no_store_is_refused(
    tiny_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "junk.sqlite3").write_text("this is no database, but somebody's only copy of something")
    said = failed(capfd, "run", "dadpo", "--recipe", tiny_recipe, "--store", "junk.sqlite3", "--dry-run")
    assert "no usable SQLite store" in said
