"""Whole runs with a served teacher: the same as with the teacher at hand, gone on with, and what is refused."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from _thread import interrupt_main
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.models import chat_tokenizer
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.drawing import Drawing
from dadpo_bench.stages.served import collect_served_responses
from dadpo_bench.stages.served_signals import collect_served_signals
from dadpo_bench.stages.signals import Scored
from dadpo_bench.store import open_store, schema
from dadpo_bench.types import Pair, Sampling
from tests.conftest import environment, program, write_recipe
from tests.served.conftest import Served
from tests.served.teacher_server import MODEL, TeacherServer, teaching

KEY = "sk-planted-0123456789abcdef"
GREEDY = Sampling(temperature=0, max_new_tokens=4)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object) -> Result:
    result = call(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def teacher(recipe: Path, name: str, directory: Path, server: TeacherServer | str, **settings: Any) -> Path:
    """The recipe with a served teacher, `pmi` with weights of its own, greedy teacher's responses."""
    content = json.loads(recipe.read_text())
    if settings.get("protocol") != "openai":
        settings = {"tokenizer": str(directory), **settings}
    url = server if isinstance(server, str) else server.url
    content["teacher"] = {"endpoint": url, "model": MODEL, "protocol": "vllm", **settings}
    return _written(recipe.with_name(f"{name}.yaml"), content, directory)


@pytest.fixture(scope="module")
def here(tiny_models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of the run with the teacher at hand."""
    folder = tmp_path_factory.mktemp("here")
    recipe = write_recipe(tiny_models, folder)
    _written(recipe, json.loads(recipe.read_text()), tiny_models[0])
    ran = program("run", "dadpo", "--recipe", recipe, "--store", "x.sqlite3", "--until", "responses", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return told(folder / "x.sqlite3")


def _written(path: Path, content: dict[str, Any], directory: Path) -> Path:
    content["teacher_sampling"] |= {"temperature": 0}
    content["evaluation"] |= {"kl_prompts": 1}
    content["judge_settings"] = {"model": str(directory)}
    path.write_text(json.dumps(content))
    return path


def told(store: Path) -> dict[str, Any]:
    """By who and prompt what was said, and by tokens what the teacher gives them."""
    with closing(open_store(str(store))) as opened, opened.read() as session:
        said = (
            select(schema.Contestant.name, schema.Response)
            .join(schema.Answer, schema.Answer.contestant_key == schema.Contestant.key)
            .join(schema.Response, schema.Response.key == schema.Answer.response_key)
            .where(schema.Contestant.kind.in_(("teacher", "student")))
        )
        texts = {
            (name, row.prompt_key): [reply["text"] for reply in row.replies] for name, row in session.execute(said)
        }
        rows = session.scalars(select(schema.Signal)).all()
        signals: dict[str, dict[str, float]] = {}
        for row in rows:
            signals.setdefault(f"{row.precision} {row.model_key}", {})[row.tokens_key] = row.total
        environments = [run.environment for run in session.scalars(select(schema.Run))]
    return {"texts": texts, "signals": signals, "environments": environments}


@pytest.mark.parametrize("protocol", ["vllm", "sglang"])
def test_dadpo_with_a_served_teacher_is_dadpo_with_the_teacher_at_hand(
    protocol: str,
    here: dict[str, Any],
    directory: Path,
    tiny_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with teaching(directory) as server:
        recipe = teacher(tiny_recipe, "served", directory, server, protocol=protocol, weights=str(directory))
        command = ("run", "dadpo", "--recipe", recipe, "--store", "there.sqlite3")
        first = done(*command)
        calls = len(server.asked)
        done(*command)
        assert len(server.asked) == calls  # nothing is asked twice
    there = told(tmp_path / "there.sqlite3")
    assert there["texts"] == here["texts"]
    (theirs,) = (found for key, found in there["signals"].items() if key.startswith(f"served:{protocol}"))
    if protocol == "vllm":  # which tells the sampled ids: of a text alone, bytes that are no letter are not known
        (ours,) = (found for key, found in here["signals"].items() if there["signals"].keys().isdisjoint({key}))
        assert theirs == pytest.approx(ours, abs=1e-3)
    assert [found["kind"] for found in there["environments"][0]["parity"]] == ["template", "again", "weights"]
    assert "which weights answer is not verified" in first.output
    assert "dadpo-bench run sft dpo dadpo --seeds 3" in " ".join(first.output.split())  # kd cannot be taught so
    assert "no KL columns: an endpoint gives no distribution over the vocabulary" in first.output
    board = (tmp_path / "there.md").read_text()
    assert f"{MODEL}, known by its name at an endpoint ({protocol}): which weights answered is not verified" in board
    assert "KL from teacher" not in board
    assert server.url not in board


def test_any_endpoint_teaches_sft_and_dpo(
    directory: Path, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with teaching(directory, prompt_logprobs=False) as server:
        recipe = teacher(tiny_recipe, "served", directory, f"{server.url}/v1", protocol="openai")
        result = done("run", "dpo", "--recipe", recipe, "--store", "x.sqlite3")
        assert not server.scored
    assert "gives no log-probs: that it wrote its responses is not checked" in result.output
    refused = call("run", "dadpo", "--recipe", recipe, "--store", "x.sqlite3")
    assert refused.exit_code == 2
    assert "dadpo learns from the teacher's log-probs of given tokens" in " ".join(refused.output.split())


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("run", "kd"), "kd compares student and teacher over the whole vocabulary"),
        (("run", "dadpo", "--set", "judge_settings={}"), "name another scoring model"),
        (("run", "dadpo", "--set", "student={prune: {ratio: 0.2}}"), "name student.model"),
        (("run", "dadpo", "--set", "teacher.endpoint=http://user:secret@127.0.0.1/v1"), "must hold no user, password"),
        (
            ("run", "dpo", "--set", "teacher={endpoint: https://a.example/v1, model: m, protocol: openai}"),
            "no API key: set OPENAI_API_KEY, or name the variable that holds it by teacher.api_key_env",
        ),
    ],
    ids=["kd", "pmi", "prune", "password", "key"],
)
def test_what_a_served_teacher_cannot_do_is_refused_with_the_remedy(
    arguments: tuple[str, ...], why: str, directory: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_recipe.parent)
    recipe = teacher(tiny_recipe, "served", directory, "http://127.0.0.1:9")
    refused = call(*arguments, "--recipe", recipe, "--store", "x.sqlite3")
    assert refused.exit_code == 2
    assert why in " ".join(refused.output.split())
    assert "secret" not in refused.output
    assert not Path("x.sqlite3").is_file()


def test_a_run_that_is_killed_while_it_scores_sends_nothing_again_that_was_kept(
    directory: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    with teaching(directory) as server:
        settings = {"batch_tokens": 1, "concurrency": 1}
        recipe = teacher(tiny_recipe, "served", directory, server, **settings)
        command = [sys.executable, "-m", "dadpo_bench", "run", "dadpo", "--recipe", str(recipe)]
        command += ["--store", "x.sqlite3", "--until", "signals"]
        server.knobs.seconds = 0.15
        options = {"cwd": tmp_path, "env": {**environment(), "NO_PROXY": "127.0.0.1"}}
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
        while _kept(tmp_path) < 3 and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        running.wait()
        server.knobs.seconds = 0
        before, kept = server.scored, _kept(tmp_path)
        again = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        assert again.returncode == 0, again.stderr
    total = _kept(tmp_path)
    assert 3 <= kept < total
    assert server.scored - before == total - kept + 2 * 8  # the gate's eight, twice


def _kept(folder: Path) -> int:
    """The teacher's signals that the store holds."""
    try:
        with closing(sqlite3.connect(f"file:{folder / 'x.sqlite3'}?mode=ro", uri=True)) as store:
            query = "SELECT count(*) FROM signals WHERE precision LIKE 'served:%'"
            return int(store.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def collect(bench: Bench, model: Any, pairs: list[Scored]) -> list[Pair]:
    tokenizer = chat_tokenizer(str(model.directory))
    return collect_served_signals(
        bench, model, tokenizer, pairs, sampled=False, label="teacher signals", before=lambda _: None
    )


def test_ctrl_c_lets_what_is_in_flight_arrive_and_the_same_call_goes_on(
    directory: Path, served: Served, bench: Bench, pairs: list[Scored], monkeypatch: pytest.MonkeyPatch
) -> None:
    with teaching(directory) as server:
        scores = server._scores

        def interrupting(sequences: list[list[int]], salt: str) -> list[list[float]]:
            if server.scored == 3:
                interrupt_main()
            return scores(sequences, salt)

        monkeypatch.setattr(server, "_scores", interrupting)
        with pytest.raises(KeyboardInterrupt):
            collect(bench, served(server, batch_tokens=1, concurrency=1), pairs)
        kept = server.scored
        assert 3 <= kept < 12
        with bench.store.read() as session:
            assert len(session.scalars(select(schema.Signal)).all()) == kept
        collect(bench, served(server), pairs)
        assert server.scored == 12


def test_a_dead_server_is_left_out_and_tried_again_once_it_is_up(
    directory: Path, served: Served, bench: Bench, pairs: list[Scored]
) -> None:
    with teaching(directory, healthy=False) as sick, teaching(directory) as sound:
        model = served(sick, sound, batch_tokens=1, concurrency=1)
        collect(bench, model, pairs[:3])
        assert (sick.scored, sound.scored) == (0, 6)
        assert f"left out for a while: 127.0.0.1:{sick.port}" in bench.reporter.console.export_text()
        sick.knobs.healthy = True
        sound.knobs.seconds = 0.6  # longer than a server rests at first
        collect(bench, model, pairs)
        assert sick.scored
        assert sick.scored + sound.scored == 12


def test_a_server_that_dies_on_the_way_hands_its_work_to_the_others(
    directory: Path, served: Served, bench: Bench, pairs: list[Scored]
) -> None:
    with teaching(directory) as sound, teaching(directory, statuses=[500] * 99) as dying:
        collect(bench, served(dying, sound, batch_tokens=1), pairs)
    with bench.store.read() as session:
        assert len(session.scalars(select(schema.Signal)).all()) == 12


def test_what_stays_unscored_is_told_and_owed(
    directory: Path, served: Served, bench: Bench, pairs: list[Scored], monkeypatch: pytest.MonkeyPatch
) -> None:
    with teaching(directory) as server:
        model = served(server, batch_tokens=1, concurrency=1)
        scores = model.scorer.scores
        monkeypatch.setattr(
            model.scorer,
            "scores",
            lambda batches: ((i, "api error" if i < 2 else s) for i, s in scores(batches)),
        )
        with pytest.raises(WorkError, match=r"2 responses unscored \(api error\); run the same command again"):
            collect(bench, model, pairs)
        monkeypatch.undo()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        before = server.scored
        collect(bench, model, pairs)
        assert server.scored - before == 2


def test_ports_urls_and_haste_decide_no_key_and_the_name_and_tokenizer_do(
    served: Served, tiny_models: tuple[Path, Path], tmp_path: Path
) -> None:
    one = served("http://127.0.0.1:1")
    same = [
        served("http://127.0.0.1:2/v1"),
        served("http://a.example:8000", "http://b.example:8000", concurrency=99, timeout_seconds=1, batch_tokens=7),
        served("http://127.0.0.1:1", tokenizer=str(tiny_models[1]), weights="anywhere", api_key_env="MINE"),
    ]
    assert {model.key for model in same} == {one.key}
    others = [
        served("http://127.0.0.1:1", model="org/other"),
        served("http://127.0.0.1:1", protocol="sglang"),
        served("http://127.0.0.1:1", chat_template="{{ messages }}"),
    ]
    assert len({model.key for model in [one, *others]}) == 4
    plain = {"protocol": "openai", "tokenizer": None}
    at_a, at_b = served("http://a.example", **plain), served("http://b.example", **plain)
    assert at_a.key != at_b.key
    assert at_a.key == served("http://a.example:8000/v1", **plain).key


def test_a_key_that_is_no_teachers_is_not_sent_to_its_servers(
    directory: Path, served: Served, bench: Bench, pairs: list[Scored], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with teaching(directory) as server:
        collect(bench, served(server), pairs)
        list(served(server).scorer.prompt_tokens([pairs[0].prompt]))
        collect_served_responses(bench, served(server), [pairs[0].prompt], Drawing(GREEDY, {}, 0), "responses")
        assert {headers["authorization"] for headers in server.headers} == {"Bearer none"}
        server.knobs.key = "another"
        with pytest.raises(UserError, match=r"name the variable that holds it \(teacher.api_key_env\)"):
            collect(bench, served(server, model=MODEL, protocol="sglang"), pairs)


def test_the_key_is_sent_and_told_to_nobody(
    directory: Path, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with teaching(directory, key=KEY) as server:
        recipe = teacher(tiny_recipe, "served", directory, server, api_key_env="TEACHER_KEY")
        outputs = [done("run", "dadpo", "--recipe", recipe, "--store", "x.sqlite3", "--until", "signals").output]
        assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
        server.knobs.key = "another"
        wrong = call("run", "dadpo", "--recipe", recipe, "--store", "y.sqlite3")
        outputs.append(wrong.output)
    assert "does not accept the API key: check TEACHER_KEY" in " ".join(wrong.output.split())
    assert not any(KEY in output for output in outputs)
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
