"""`dadpo-bench comparisons`: filtered, side by side, by key, hostile text as text."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from tests.leaderboard.open_boards import made

STORE = ("--store", "results/reference.sqlite3")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["comparisons", *STORE, *arguments], env={"COLUMNS": "100"})


def found(*arguments: str) -> list[dict[str, Any]]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_filters_leave_what_they_say() -> None:
    shown = found("--method", "dadpo", "--outcome", "win", "--task", "general", "--seed", "1", "--limit", "1000")
    # Seed 1 wins a tenth of the 40 prompts.
    assert len(shown) == 4
    assert {(c["contestant"], c["outcome"], c["task"], c["seed"]) for c in shown} == {("dadpo", "win", "general", 1)}


def test_a_comparison_is_shown_side_by_side_with_what_was_said() -> None:
    shown = call("--method", "dadpo", "--outcome", "loss", "--limit", "1").stdout
    (c,) = found("--method", "dadpo", "--outcome", "loss", "--limit", "1")
    assert all(
        part in shown for part in (c["key"], "teacher (baseline)", "the contestant's response · rating ", "judge pmi")
    )
    assert c["response"][0].split()[0] in shown
    assert "1 of 203; --limit shows more of the other 202" in shown


def test_a_long_word_is_shown_whole(tmp_path: Path) -> None:
    store = made(tmp_path / "x.sqlite3", {"j": {"mine": "W"}})
    with closing(sqlite3.connect(store)) as raw:
        reply = json.dumps([{"text": "漢" * 300, "token_ids": [], "finish": "stop"}])
        raw.execute("UPDATE responses SET replies = ? WHERE replies LIKE '%mine%'", (reply,))
        raw.commit()
    shown = CliRunner().invoke(app, ["comparisons", "--store", store], env={"COLUMNS": "60"}).stdout
    assert shown.count("漢") == 300


def test_names_of_others_reach_no_terminal_as_they_are(tmp_path: Path) -> None:
    store = made(tmp_path / "x.sqlite3", {"j": {"a\x1b]0;PWNED\x07\u202e:smile:": "W"}})
    for arguments in ([], ["--method", "nobody"], ["--method", "nobody", "--json"]):
        result = CliRunner().invoke(app, ["comparisons", "--store", store, *arguments])
        assert not {"\x1b", "\x07", "\u202e", "😄"} & set(result.output)


def test_a_key_or_its_beginning_shows_the_same_again() -> None:
    (first,) = found("--limit", "1")
    assert found("--key", first["key"]) == found("--key", first["key"][:8]) == [first]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "dadop"], "unknown contestant 'dadop'; did you mean 'dadpo'"),
        (["--outcome", "won"], "unknown outcome 'won'"),
        (["--task", "generic"], "unknown task 'generic'; did you mean 'general'"),
        (["--seed", "7"], "unknown seed '7'"),
        (["--key", "zzz"], "no comparison whose key begins with 'zzz'"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(arguments: list[str], said: str) -> None:
    result = call(*arguments)
    assert (result.exit_code, said in result.stderr) == (2, True), result.output
    assert len(result.stderr.strip().splitlines()) == 1
