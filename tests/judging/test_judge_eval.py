"""`judge-eval`: canaries and labelled pairs before a judge, kept, resumed and cited."""

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from dadpo_bench.judging.canary_trial import canary_answers
from dadpo_bench.leaderboard import render
from dadpo_bench.places import REFERENCE_STORE
from dadpo_bench.store import open_store, schema
from tests.judges.scripted_server import Act, ScriptedServer, says, serving

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / REFERENCE_STORE

# The better answer of each pair is the one that says "good".
PAIRS = [
    {"turns": ["One?"], "first": ["good"], "second": ["a much longer one"], "label": "first"},
    {"turns": ["Two?"], "first": ["bad"], "second": ["good"], "labels": ["second", "second", "tie"]},
    {"turns": ["Three?"], "first": ["- good\n- list"], "second": ["bad"], "label": "second"},
]


def judge_eval(store: Path, judge: str, *more: object) -> Result:
    return CliRunner().invoke(app, ["judge-eval", judge, "--store", str(store), "-q", *map(str, more)])


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "people.jsonl"
    path.write_text("\n".join(map(json.dumps, PAIRS)))
    return path


def fair(number: int, body: dict[str, Any]) -> Act:
    """A judge that finds the word."""
    text = body["messages"][-1]["content"]
    first, _, second = text.partition("Answer of assistant B")  # of each turn
    return says("[[A]]" if "good" in first else "[[B]]" if "good" in second else "[[C]]")


def ask(server: ScriptedServer, store: Path, *more: object) -> dict[str, Any]:
    done = judge_eval(store, "chat:m", "--set", f"base_url={server.url}", "--json", *more)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_judge_is_held_against_labels(pairs: Path, tmp_path: Path) -> None:
    with serving(fair) as server:
        options = ("--pairs", pairs, "--retest", 3, "--set", "usd_per_million=[1, 10]")
        (found,) = ask(server, tmp_path / "x.sqlite3", *options)["sets"]
        asked = len(server.bodies)
    # It agrees with 1 of 1, 2 of 3 and 0 of 1 labels.
    assert (found["agreement"]["share"], found["agreement"]["votes"]) == (pytest.approx(60), 5)
    assert found["agreement_without_ties"]["share"] == pytest.approx(75)
    # Three couples of annotators of the second pair, one of which agrees.
    assert found["between_annotators"] == pytest.approx(100 / 3)
    assert (found["flip_rate"], found["first_shown"]) == (0, 50)
    assert (found["prefers_list"], found["labels_prefer_list"]) == (100, 0)
    assert found["retest"]["share"] == 100
    assert asked == 12  # three pairs, two orders, and all once more
    assert found["tokens_per_1000"] == 99_000
    assert found["usd_per_1000"] == pytest.approx(0.09 + 0.09)


def test_a_limit_ends_it_and_what_was_said_is_not_asked_again(pairs: Path, tmp_path: Path) -> None:
    store = tmp_path / "x.sqlite3"
    with serving(fair) as server:
        url = f"base_url={server.url}"
        limited = judge_eval(store, "chat:m", "--set", url, "--pairs", pairs, "--max-calls", 4, "--concurrency", 1)
        assert limited.exit_code == 1
        assert "--max-calls 4 is reached: 2 of 6 questions" in " ".join(limited.output.split())
        assert len(server.bodies) == 4
        ask(server, store, "--pairs", pairs)
        assert len(server.bodies) == 6


@pytest.mark.parametrize("of", ["pairs", "canaries"])
def test_a_dry_run_shows_two_questions_and_the_cost_and_needs_no_key(
    of: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    store = tmp_path / "x.sqlite3"
    options = ("--pairs", pairs) if of == "pairs" else ("--responses", REFERENCE)
    done = judge_eval(store, "chat:gpt-4o", *options, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "--- question 2 to chat:gpt-4o ---" in done.stdout
    # Three pairs; seven canaries and the teacher on the reference's 16 prompts: both orders each.
    assert f"if nothing is stored: {6 if of == 'pairs' else 2 * 8 * 16} calls, " in done.stdout
    assert not store.exists()
    (told,) = json.loads(judge_eval(store, "chat:gpt-4o", *options, "--dry-run", "--json").stdout)
    assert (told["judge"], len(told["questions"]), told["unfit"]) == ("chat:gpt-4o", 2, {})
    assert f"if nothing is stored: {told['cost']}" in done.stdout


def test_a_dry_run_looks_at_the_other_judge_too(pairs: Path, tmp_path: Path) -> None:
    def tried(other: str) -> Result:
        options = ("--pairs", pairs, "--against", other, "--dry-run")
        return judge_eval(tmp_path / "x.sqlite3", "longer", *options)

    assert "chat-score:m, if nothing is stored: 6 calls" in tried("chat-score:m").stdout
    wrong = tried("chat-skore:m")
    assert (wrong.exit_code, "did you mean 'chat-score'?" in wrong.output) == (2, True)


def test_a_judge_that_asks_nobody_says_so_in_a_dry_run(pairs: Path, tmp_path: Path) -> None:
    done = judge_eval(tmp_path / "x.sqlite3", "longer", "--pairs", pairs, "--dry-run")
    assert done.stdout == "longer asks no model that is paid for: there is no question to show\n"


def test_a_judge_that_takes_whatever_comes_first_is_seen_through(pairs: Path, tmp_path: Path) -> None:
    with serving(says("[[A]]")) as server:
        (found,) = ask(server, tmp_path / "x.sqlite3", "--pairs", pairs)["sets"]
    assert (found["flip_rate"], found["first_shown"]) == (100, 100)
    assert found["agreement_without_ties"] is None  # of both orders it makes ties alone


def test_what_was_asked_is_not_asked_again(pairs: Path, tmp_path: Path) -> None:
    with serving(fair) as server:
        first = ask(server, tmp_path / "x.sqlite3", "--pairs", pairs)
        asked = len(server.bodies)
        assert ask(server, tmp_path / "x.sqlite3", "--pairs", pairs) == first
        assert len(server.bodies) == asked == 6


def test_why_nothing_was_scored_is_told(pairs: Path, tmp_path: Path) -> None:
    with serving(says("I cannot decide.")) as server:
        options = ["--set", f"base_url={server.url}", "--pairs", str(pairs), "--store", str(tmp_path / "x.sqlite3")]
        done = CliRunner().invoke(app, ["judge-eval", "chat:m", *options])
    assert "6 unscored (unparsable); run again to ask once more" in done.output


def test_what_the_other_judge_left_unscored_is_told_too(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(says("I cannot decide.")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        options = ["--against", "chat:m", "--pairs", str(pairs), "--store", str(tmp_path / "x.sqlite3")]
        done = CliRunner().invoke(app, ["judge-eval", "longer", *options])
    assert "6 unscored (unparsable); run again to ask once more" in done.output


def test_two_judges_are_compared_on_the_same_pairs(pairs: Path, tmp_path: Path) -> None:
    with serving(fair) as server:
        (found,) = ask(server, tmp_path / "x.sqlite3", "--pairs", pairs, "--against", "longer")["sets"]
    # `longer` takes the second, the second, the first; the judge the first, the second, the first.
    assert (found["against"]["judge"], found["against"]["agreement"]["share"]) == ("longer", pytest.approx(200 / 3))
    assert found["like_longer"] == {**found["against"]["agreement_without_ties"]}


@pytest.mark.skipif(not REFERENCE.is_file(), reason="no reference store")
def test_longer_is_no_usable_judge(tmp_path: Path) -> None:
    done = judge_eval(tmp_path / "x.sqlite3", "longer", "--responses", REFERENCE, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)["canaries"]
    wrong = {row["contestant"] for row in found["canaries"] if not row["as_it_must"]}
    assert not found["usable"]
    assert {"padded", "shuffled-words"} <= wrong
    assert found["like_longer"] == 100
    shown = judge_eval(tmp_path / "x.sqlite3", "longer", "--responses", REFERENCE).stdout
    assert "NOT usable" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.skipif(not REFERENCE.is_file(), reason="no reference store")
def test_canaries_are_shown_with_the_category_that_a_run_shows_them_with() -> None:
    with closing(open_store(str(REFERENCE), create=False)) as source:
        answered = canary_answers(source)
    assert all(stored.response.prompt.category for stored in answered.by_name["null"].values())


def test_a_board_cites_what_was_found_about_its_judge(pairs: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    store = tmp_path / "x.sqlite3"
    with serving(fair) as server:
        endpoint = ["--set", f"judge_settings.base_url={server.url}", "--judge", "chat:m"]
        run = ["run", "sft", "--recipe", str(tiny_recipe), "--store", str(store), "-q", *endpoint]
        assert CliRunner().invoke(app, run).exit_code == 0
        ask(server, store, "--pairs", pairs)
        ask(server, store)
    board = store.with_suffix(".md").read_text()
    with closing(open_store(str(store), create=False)) as opened:
        assert render(opened) == board
        with opened.read() as session:
            assert session.query(schema.JudgeEvaluation).count() == 2
    assert "- judge-eval, people: agrees with 60.0 % of 5 labels" in board
    assert "- judge-eval, canaries: " in board
    store.with_suffix(".md").write_text("somebody's notes")
    assert judge_eval(store, "longer", "--pairs", pairs).exit_code == 0  # no board is made with it
    assert store.with_suffix(".md").read_text() == "somebody's notes"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody"], "unknown judge 'nobody'"),
        (["longer", "--pairs", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
        (["longer", "--retest", "3"], "--against and --retest go with --pairs"),
        (["longer", "--responses", "nowhere.sqlite3"], "no store at nowhere.sqlite3"),
        (["longer", "--set", "length=3"], "judge 'longer' has no settings"),
        (["longer", "--pairs", "PAIRS", "--against", "long"], "unknown judge 'long'"),
    ],
)
def test_a_mistake_is_told_and_makes_no_store(arguments: Sequence[str], said: str, pairs: Path, tmp_path: Path) -> None:
    given = [str(pairs) if argument == "PAIRS" else argument for argument in arguments]
    done = judge_eval(tmp_path / "x.sqlite3", *given)
    assert (done.exit_code, said in done.output) == (2, True), done.output
    assert not (tmp_path / "x.sqlite3").exists()
