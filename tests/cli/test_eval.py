"""`dadpo-bench eval`: models as they are, at endpoints and imported, ranked without training anything."""

from __future__ import annotations

import json
import shutil
import sqlite3
from _thread import interrupt_main
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from tests.judges.scripted_server import Act, ScriptedServer, fails, says, serving

KEY = "sk-planted-0123456789abcdef"
ASK = ("--task", "asked.jsonl", "--store", "s.sqlite3", "--max-new-tokens", "8", "--judge", "longer")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a task of three prompts, one of two turns; no key, no proxy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    turns = [["Tea?"], ["What is France?", "And Paris?"], ["Say three."]]
    lines(tmp_path / "asked.jsonl", [{"id": f"q{i}", "turns": turn} for i, turn in enumerate(turns)])


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def ranked(*arguments: object) -> dict[str, dict[str, Any]]:
    """The board's rows by contestant."""
    result = call(*arguments, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return {row["contestant"]: row for row in json.loads(result.stdout)["rows"]}


def at(server: ScriptedServer) -> list[str]:
    return ["--base-url", server.url, "--model-set", "backoff_seconds=0", "--model-set", "attempts=1"]


def echo(_: int, body: dict[str, Any]) -> Act:
    """The model's name, and how many messages it was shown."""
    return says(f"{body['model']} saw {len(body['messages'])}")


def imported(name: str, answers: dict[str, str], task: str = "asked", *options: str) -> None:
    rows = [{"instruction": asked, "output": said, "generator": name} for asked, said in answers.items()]
    Path(f"{name}.json").write_text(json.dumps(rows))
    asked = ("import", "alpaca-eval-outputs", f"{name}.json", "--task", task, "--store", "s.sqlite3", *options)
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, (done.output, done.exception)


@pytest.fixture(scope="module")
def with_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one imported contestant."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("base"))
        imported("base", {"Tea?": "no"})
        return Path("s.sqlite3").resolve()


def test_a_model_on_disk_is_ranked_against_another_and_asked_once(tiny_models: tuple[Path, Path]) -> None:
    teacher, student = tiny_models
    asked = (student, "--baseline", teacher, *ASK)
    first = call(*asked)
    assert first.exit_code == 0, (first.output, first.exception)
    assert first.output.count("3 responses in") == 2
    assert f"win rate against {teacher.name}" in " ".join(first.output.split())
    assert "6 ratings in" in first.output
    again = call(*asked)
    assert "responses in" not in again.output
    assert "ratings in" not in again.output
    assert call(*asked, "--dry-run").output.strip() == "nothing is owed"


def test_a_model_behind_an_endpoint_answers_turn_by_turn_and_is_asked_once() -> None:
    with serving(echo) as server:
        asked = ("small", "--baseline", "big", *at(server), *ASK)
        rows = ranked(*asked)
        assert len(server.bodies) == 2 * 4  # of each model four turns of three prompts
        second = next(body for body in server.bodies if len(body["messages"]) == 3)
        assert [m["content"] for m in second["messages"]] == [
            "What is France?",
            f"{second['model']} saw 1",
            "And Paris?",
        ]
        assert {body["temperature"] for body in server.bodies} == {0}
        assert {body["max_tokens"] for body in server.bodies} == {8}
        ranked(*asked)
        assert len(server.bodies) == 8
    assert rows["small"]["win_rate"] == 100  # `longer`, and "small" is longer than "big"
    assert rows["small"]["baseline"] == "big"


def test_another_sampling_is_another_contestant_and_seeds_share_a_row() -> None:
    imported("base", {"Tea?": "no", "Say three.": "three"})
    with serving(echo) as server:
        asked = ("m", "--baseline", "base", *at(server), *ASK)
        ranked(*asked)
        calls = len(server.bodies)
        drawn = ranked(*asked, "--temperature", "0.7", "--seed", "1")
        assert len(server.bodies) == 2 * calls
        assert (server.bodies[-1]["temperature"], server.bodies[-1]["seed"]) == (0.7, 1)
        assert {"m (temperature=0.0)", "m (temperature=0.7)"} <= set(drawn)
        rows = ranked(*asked, "--temperature", "0.7", "--seed", "2")
        assert len(server.bodies) == 3 * calls
    assert rows["m (temperature=0.7)"]["seeds"] == 2
    assert rows["m (temperature=0.0)"]["seeds"] == 1


def test_an_imported_contestant_is_judged_as_it_is_and_what_it_left_out_is_unscored() -> None:
    imported("theirs", {"Tea?": "yes, please do", "Say three.": "1"})
    imported("base", {"Tea?": "no", "Say three.": "three"})
    row = ranked("theirs", "--baseline", "base", *ASK)["theirs"]
    assert (row["win_rate"], row["prompts"], row["unscored"]) == (50, 2, 1)


def test_a_task_brings_its_own_baseline_and_a_board_of_its_own_for_its_first_prompts() -> None:
    asked = ["Tea?", "Coffee?"]
    rows = [{"instruction": a, "output": "no", "generator": "gpt4_1106_preview", "dataset": "d"} for a in asked]
    Path("alpaca_eval_gpt4_baseline.json").write_text(json.dumps(rows))
    imported("mine", {"Tea?": "yes!", "Coffee?": "-"}, "alpaca_eval_2")
    options = ("--task", "alpaca_eval_2", "--data", ".", "--judge", "longer", "--store", "s.sqlite3")
    whole = ranked("mine", *options)
    assert (whole["mine"]["baseline"], whole["mine"]["win_rate"]) == ("gpt4_1106_preview", 50)
    assert ranked("mine", *options, "--prompts", "1")["mine"]["win_rate"] == 100
    assert ranked("mine", *options)["mine"]["prompts"] == 2


def test_mt_bench_is_answered_at_its_temperatures_and_rated_without_a_baseline() -> None:
    kinds = ["writing", "extraction", "math"]
    questions = [{"question_id": i, "category": kind, "turns": [f"{kind}?"]} for i, kind in enumerate(kinds)]
    lines(Path("question.jsonl"), questions)
    lines(Path("reference_answer_gpt-4.jsonl"), [{"question_id": 2, "choices": [{"turns": ["42"]}]}])

    def script(_: int, body: dict[str, Any]) -> Act:
        return says("[[7]]") if body["model"] == "judge" else says("an answer")

    with serving(script) as server:
        options = ("--task", "mt_bench", "--data", ".", "--judge", "chat-score:judge", "--store", "s.sqlite3")
        row = ranked("m", *options, "--set", f"base_url={server.url}", *at(server))["m"]
        asked = {b["messages"][-1]["content"]: b["temperature"] for b in server.bodies if b["model"] == "m"}
    assert asked == {"writing?": 0.7, "extraction?": 0, "math?": 0}
    assert (row["single_score"], row["baseline"], row["unscored"]) == (7, "", 0)


def test_an_import_and_eval_share_a_board_whichever_knows_more_of_the_prompts() -> None:
    questions = [{"id": f"q{i}", "turns": [asked], "category": "c"} for i, asked in enumerate(["Tea?", "Coffee?"])]
    lines(Path("asked.jsonl"), [{**question, "reference": ["Yes."]} for question in questions])
    imported("base", {"Tea?": "no"}, "asked", "--baseline", "base")
    imported("theirs", {"Tea?": "yes"}, "asked", "--baseline", "base")
    assert ranked("theirs", "--baseline", "base", *ASK)["theirs"]["win_rate"] == 100
    with serving(echo) as server:
        assert ranked("m", "--baseline", "base", *at(server), *ASK)["m"]["win_rate"] == 100
        assert len(server.bodies) == 2
    imported("late", {"Tea?": "yes, please", "Coffee?": "-"}, "asked", "--baseline", "base")
    with serving(echo) as server:
        rows = ranked("m", "late", "--baseline", "base", *at(server), *ASK)
        assert len(server.bodies) == 0
    assert {"theirs", "m", "late"} <= set(rows)
    with sqlite3.connect("s.sqlite3") as store:
        assert store.execute("select count(*) from protocols").fetchone() == (1,)
        assert store.execute("select count(distinct task_key) from answers").fetchone() == (1,)


def test_prompts_that_the_board_does_not_have_make_another_board() -> None:
    imported("base", {"Tea?": "no", "Milk?": "no"}, "asked", "--baseline", "base")
    imported("theirs", {"Tea?": "yes", "Milk?": "yes"}, "asked", "--baseline", "base")
    ranked("theirs", "--baseline", "base", *ASK)
    with sqlite3.connect("s.sqlite3") as store:
        assert store.execute("select count(*) from protocols where name like '%prompts%'").fetchone() == (1,)


def test_what_failed_is_no_result_and_is_asked_again() -> None:
    imported("base", {"Tea?": "no", "Say three.": "three"})
    asked = ("m", "--baseline", "base", "--concurrency", "1", *ASK)

    def failing(_: int, body: dict[str, Any]) -> Act:
        return fails(500) if body["messages"][-1]["content"] == "Say three." else says("four letters and more")

    with serving(failing) as server:
        result = call(*asked, *at(server))
        assert "m: asked: 1 without an answer (api error: InternalServerError 500)" in result.output
        assert len(server.bodies) == 4
    with serving(echo) as server:
        row = ranked(*asked, *at(server))["m"]
        assert [body["messages"][-1]["content"] for body in server.bodies] == ["Say three."]
    assert (row["prompts"], row["unscored"]) == (2, 1)  # the baseline left out the third


def test_a_limit_ends_it_with_what_came_kept(with_base: Path) -> None:
    asked = ("m", "--baseline", "base", "--concurrency", "1", *ASK)
    shutil.copy(with_base, "s.sqlite3")
    with serving(echo) as server:
        result = call(*asked, *at(server), "--max-calls", "1")
        assert result.exit_code == 1
        assert len(server.bodies) == 1
        ranked(*asked, *at(server))
        assert len(server.bodies) == 4  # none twice


def test_ctrl_c_keeps_what_is_in_flight_and_the_same_command_asks_for_the_rest_alone(with_base: Path) -> None:
    shutil.copy(with_base, "s.sqlite3")
    asked = ("m", "--baseline", "base", "--concurrency", "1", *ASK)

    def interrupted(number: int, body: dict[str, Any]) -> Act:
        if number == 0:
            interrupt_main()
        return echo(number, body)

    with serving(interrupted) as server:
        result = call(*asked, *at(server))
        assert result.exit_code == 130
        assert "finishing what is in flight" in result.output
        first = [body["messages"][0]["content"] for body in server.bodies]
    with serving(echo) as server:
        ranked(*asked, *at(server))
        rest = [body["messages"][0]["content"] for body in server.bodies]
    assert len(first) < 4
    assert not set(first) & set(rest)
    assert {*first, *rest} == {"Tea?", "What is France?", "Say three."}


def test_dry_run_needs_no_key_asks_nobody_and_tells_what_is_owed(tmp_path: Path) -> None:
    imported("base", {"Tea?": "no", "Say three.": "three"})
    before = sorted(path.name for path in tmp_path.iterdir())
    options = ("--base-url", "https://example.org/v1", "--task", "asked.jsonl", "--store", "s.sqlite3", "--dry-run")
    result = call("m", "--baseline", "base", *options, "--judge", "chat:gpt-4o")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "owed: m: asked: 3 responses" in result.output
    assert "m, if nothing is stored: 4 calls" in result.output
    assert "--- question 2 to chat:gpt-4o ---" in result.output
    assert "chat:gpt-4o, if nothing is stored: 6 calls" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_model_that_takes_no_temperature_is_sent_none(with_base: Path) -> None:
    shutil.copy(with_base, "s.sqlite3")
    with serving(echo) as server:
        assert "m" in ranked("m", "--baseline", "base", *ASK, *at(server), "--model-set", "temperature=null")
        assert not any("temperature" in body for body in server.bodies)
        wrong = call("m", "--baseline", "base", *ASK, *at(server), "--model-set", "temperature=1")
    assert wrong.exit_code == 2
    assert "give it by --temperature" in " ".join(wrong.stderr.replace("│", " ").split())


def test_a_key_stays_with_the_requests(with_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(with_base, "s.sqlite3")
    monkeypatch.setenv("MY_KEY", KEY)
    script: list[Act] = [fails(401, message=f"wrong key {KEY}"), *[says("yes")] * 4]
    with serving(script) as server:
        asked = ("m", "--baseline", "base", "--concurrency", "1", *ASK, *at(server), "--api-key-env", "MY_KEY")
        said = []
        for code in (2, 0):
            result = call(*asked)
            assert result.exit_code == code, (result.output, result.exception)
            said.append(result.output + result.stderr)
        assert set(server.keys) == {f"Bearer {KEY}"}
    assert not any(KEY in text for text in said)
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["m", "--task", "alpaca_evl_2", "--judge", "longer"], "did you mean 'alpaca_eval_2'?"),
        (["m", "--task", "asked.jsonl", "--judge", "longr"], "did you mean 'longer'?"),
        (
            ["smollm2-135m", "--baseline", "x", "--task", "asked.jsonl", "--judge", "longer"],
            "one behind an endpoint by",
        ),
        (["basis", "--baseline", "base", "--task", "asked.jsonl", "--judge", "longer"], "did you mean 'base'?"),
        (["base", "--task", "asked.jsonl", "--judge", "longer"], "name one by --baseline MODEL"),
        (["base", "--baseline", "base", "--task", "asked.jsonl", "--judge", "longer"], "name another model beside it"),
        (["base", "--task", "asked.jsonl", "--judge", "chat:gpt-4o"], "no API key: set OPENAI_API_KEY"),
        (
            ["m", "--baseline", "base", "--task", "asked.jsonl", "--judge", "longer", "--base-url", "https://e.org/v1"],
            "no API key: set OPENAI_API_KEY, or name another variable by --api-key-env",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_way_out(
    with_base: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], remedy: str
) -> None:
    shutil.copy(with_base, "s.sqlite3")
    result = call(*arguments, "--store", "s.sqlite3")
    said = (result.stderr + capfd.readouterr().err).strip()
    assert result.exit_code == 2, (result.output, result.exception)
    assert remedy in said
    assert len(said.splitlines()) == 1


def test_a_dead_endpoint_is_one_line(with_base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copy(with_base, "s.sqlite3")
    with serving(fails(500)) as server:
        result = call("m", "--baseline", "base", *ASK, *at(server), "--quiet")
        said = (result.stderr + capfd.readouterr().err).strip()
    assert result.exit_code == 1
    assert said.startswith("error: model endpoint local failed all 3 questions")
    assert said.endswith("check the server, then run the same command again")
