"""Who is told of long work, and when."""

import io

import pytest
from rich.console import Console

from dadpo_bench import progress
from dadpo_bench.progress import Reporter, running
from dadpo_bench.scores import rows_of
from tests.regression.boards import Stands, panel_of


def told(monkeypatch: pytest.MonkeyPatch, patience: float) -> str:
    monkeypatch.setattr(progress, "_PATIENCE", patience)
    words = io.StringIO()
    panel = panel_of("pairwise", [Stands("teacher", "teacher"), Stands("dpo", orders="WW WL LL LL")])
    with Reporter(Console(file=words)).running():
        rows_of(panel)
    return words.getvalue()


def test_scoring_that_takes_its_time_is_told_by_whoever_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "length control, golden: 200 fits in" in told(monkeypatch, patience=-1)


def test_scoring_that_is_over_at_once_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, patience=60) == ""


def test_outside_of_a_run_nobody_is_told() -> None:
    with Reporter(Console(file=io.StringIO())).running():
        assert not running().quiet
    assert running().quiet
