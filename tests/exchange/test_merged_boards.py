"""Boards that two stores imported into: one board of one task, as if one store had been given all files."""

from pathlib import Path
from typing import Any

import pytest

from tests.exchange.stores import board, call, done, lines, refused
from tests.exchange.test_own import GOOD

ANOTHER: list[dict[str, Any]] = [
    *GOOD[:1],
    {"prompt": {"id": "q", "turns": ["Why?"], "category": "d"}},
    *GOOD[1:3],
    {"contestant": "b", "id": "q", "replies": ["5"]},
    {"contestant": "n", "id": "q", "replies": ["6"]},
    {"contestant": "n", "id": "p", "replies": ["7", "8"]},
    GOOD[4],
    {"by": "pairs", "of": "n", "id": "q", "order": "ab", "verdict": {"outcome": "win"}},
    {"by": "pairs", "of": "n", "id": "p", "order": "ab", "verdict": {"outcome": "loss"}},
]


@pytest.fixture
def apart(tmp_path: Path) -> tuple[str, str]:
    """Two stores with one task's prompts each, one of which both have."""
    for name, rows in (("a", GOOD), ("b", ANOTHER)):
        done("import", "jsonl", lines(tmp_path / f"{name}.jsonl", rows), "--store", f"{name}.sqlite3")
    return "a.sqlite3", "b.sqlite3"


def test_a_task_that_two_stores_know_in_part_is_one_task(apart: tuple[str, str]) -> None:
    for order, into in ((apart, "ab.sqlite3"), (apart[::-1], "ba.sqlite3")):
        result = call("merge", *order, "--into", into)
        assert result.exit_code == 0, result.output
    for name in ("a", "b"):
        done("import", "jsonl", f"{name}.jsonl", "--store", "both.sqlite3")
    assert board("ab.sqlite3") == board("ba.sqlite3") == board("both.sqlite3")


def test_what_was_joined_may_be_merged_and_imported_into_again(apart: tuple[str, str]) -> None:
    call("merge", *apart, "--into", "c.sqlite3")
    before = board("c.sqlite3")
    assert call("merge", *apart, "--into", "c.sqlite3").exit_code == 0
    done("import", "jsonl", "a.jsonl", "--store", "c.sqlite3")
    assert board("c.sqlite3") == before


def test_another_answer_to_a_prompt_that_only_the_text_shares_is_refused(
    tmp_path: Path, apart: tuple[str, str]
) -> None:
    other = [
        {**row, "replies": ["else", "2"]} if row.get("contestant") == "b" and row["id"] == "p" else row
        for row in ANOTHER
    ]
    done("import", "jsonl", lines(tmp_path / "o.jsonl", other), "--store", "o.sqlite3")
    assert "two answers of 'b' to one prompt" in refused("merge", apart[0], "o.sqlite3", "--into", "c.sqlite3")
    assert not Path("c.sqlite3").exists()
