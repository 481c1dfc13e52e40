"""Golden boards: a change of any formula, template or parser fails the test that is named after it.

Where the change is meant, `python -m tests.regression.regenerate` writes the files anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dadpo_bench import scoring
from dadpo_bench.judging import judgments
from dadpo_bench.scoring import (
    agreement,
    bradley_terry,
    intervals,
    length_control,
    power,
    style,
    summary,
)
from judges import parsers, template
from tests.regression.cases import CASES
from tests.regression.golden_files import FOLDER, differences, read


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    found = differences(case, CASES[case]())
    assert not found, "\n".join([*found[:20], f"meant? python -m tests.regression.regenerate {case}"])


def test_every_golden_file_has_its_case() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(CASES)


def test_a_golden_board_worked_by_hand() -> None:
    # dpo, one order: "W L W T ? L" over 24 prompts is 4 times 2 wins, 2 losses, 1 tie, 1 unscored.
    dpo = next(row for row in read("pairwise-one-order") if row["contestant"] == "dpo")
    assert (dpo["n_wins"], dpo["n_wins_base"], dpo["n_draws"], dpo["unscored"], dpo["flip_rate"]) == (8, 8, 4, 4, None)
    # (8 + 4/2)/20; deviations 16 of ½, so √(16·¼/19)/√20.
    assert dpo["win_rate"] == pytest.approx(50)
    assert dpo["standard_error"] == pytest.approx(100 * (4 / 19 / 20) ** 0.5)


def _half_a_tie_is_a_loss(outcomes: Any) -> scoring.Shares:
    return scoring.Shares(*(100 * float(np.nanmean(side)) for side in (outcomes > 0.5, outcomes > 1, outcomes <= 0.5)))


@pytest.mark.parametrize(
    ("case", "module", "name", "changed"),
    [
        ("pairwise-both-orders", summary, "flip_rate", lambda orders: 100.0),
        ("pairwise-one-order", summary, "standard_error", lambda o: 100 * float(np.nanstd(o) / len(o) ** 0.5)),
        ("graded-preferences", summary, "win_tie_loss", _half_a_tie_is_a_loss),
        ("several-seeds", intervals, "drawn_seeds", lambda seeds, draws, seed: np.ones((draws, seeds))),
        ("length-controlled", length_control, "_PRIOR", np.array([1 / 2.4**2, 1 / 100**2])),
        ("bradley-terry", bradley_terry, "SCALE", 400 / np.log(10.1)),
        ("style-controlled", style, "_LISTS", style._BOLD),
        ("paired-differences", intervals, "_EXACT", 0),
        ("power", power, "_fewest", lambda alpha: 100),
        ("agreement-of-judges", agreement, "sides", lambda outcomes: np.asarray(outcomes)),
        ("judge-questions", template, "inert", lambda text: text),
        ("parsers", parsers, "last_choice", lambda text, labels: next((c for c in labels if labels[c] in text), None)),
        ("parsers", parsers, "_RATING", parsers._BRACKETED),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_deliberate_change_is_seen(
    case: str, module: Any, name: str, changed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, changed)
    assert differences(case, CASES[case]())


def test_a_tie_of_ratings_that_counts_as_a_win_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    own = judgments.Judgments.outcomes
    monkeypatch.setattr(judgments.Judgments, "outcomes", lambda *given: np.ceil(own(*given)))
    found = differences("pointwise-against-a-baseline", CASES["pointwise-against-a-baseline"]())
    assert any("win_rate" in line for line in found)


def test_differences_are_named_by_row_and_column() -> None:
    changed = read("texts")
    changed[0]["mean_length"] += 1e-6
    (line,) = differences("texts", changed)
    assert line.startswith(f"texts / {changed[0]['contestant']} / mean_length: ")
    changed[0]["mean_length"] -= 1e-6 - 1e-12
    assert not differences("texts", changed)
