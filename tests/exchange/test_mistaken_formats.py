"""Files imported as another format than theirs are answered with the format that they are of."""

from pathlib import Path

import pytest

from tests.exchange import test_alpaca_eval_files as alpaca_eval
from tests.exchange import test_arena_hard as arena_hard
from tests.exchange import test_mt_bench as mt_bench
from tests.exchange.stores import Rows, lines, refused
from tests.exchange.test_own import GOOD

OUTPUT = {"instruction": "Q?", "output": "A.", "generator": "mine"}
FILES: list[tuple[str, Rows]] = [
    ("alpaca-eval-outputs", [OUTPUT]),
    ("alpaca-eval-annotations", [alpaca_eval.annotation(0)]),
    ("mt-bench-answers", [mt_bench.answer(1)]),
    ("mt-bench-judgments", [mt_bench.judgment(1, 1)]),
    ("arena-hard-answers", [arena_hard.answer("q", "mine")]),
    ("arena-hard-judgments", [arena_hard.judgment("q", [arena_hard.game("A>B")])]),
    ("jsonl", GOOD),
]


@pytest.mark.parametrize("said", dict(FILES))
@pytest.mark.parametrize(("format", "rows"), FILES)
def test_the_format_that_files_are_of_is_named(said: str, format: str, rows: Rows, tmp_path: Path) -> None:
    if said != format:
        error = refused("import", said, lines(tmp_path / "a.jsonl", rows))
        assert f"it looks like {format}: `dadpo-bench import {format}`" in error
    assert not Path("results").exists()


def test_arena_hards_earlier_answers_are_told_from_mt_benchs(tmp_path: Path) -> None:
    _, answer, *_ = arena_hard.earlier("q")  # choices of turns, too
    assert "it looks like arena-hard-answers" in refused("import", "mt-bench-answers", lines(tmp_path / "a", [answer]))


def test_a_broken_record_of_the_format_that_was_named_is_no_other(tmp_path: Path) -> None:
    rows = [OUTPUT, {**OUTPUT, "output": None}]
    error = refused("import", "alpaca-eval-outputs", lines(tmp_path / "a.jsonl", rows))
    assert "looks like" not in error
    assert "line 2: nothing of AlpacaEval (output: " in error
