"""Prompt outcomes and what is counted of them. Outcomes are in [0, 1], NaN where unscored; results in per cent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Shares(NamedTuple):
    """Per cent of prompts whose outcome is above, at and below ½."""

    win: float
    tie: float
    loss: float


def nanmean(values: Floats, axis: int) -> Floats:
    """Mean over an axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    total = np.where(known, values, 0.0).sum(axis)
    mean: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def padded(rows: Iterable[Floats], inner: int = 0) -> Floats:
    """Rows of (prompts, …) or (seeds, prompts, …), `inner` dimensions behind prompts → (P, seeds, prompts, …)."""
    whole = [np.asarray(row, dtype=float) for row in rows]
    whole = [row[None] if row.ndim == 1 + inner else row for row in whole]
    most = max(len(row) for row in whole)
    return np.stack([np.concatenate([r, np.full((most - len(r), *r.shape[1:]), np.nan)]) for r in whole])


def prompt_outcomes(orders: Floats) -> Floats:
    """(…, prompts, orders) → (…, prompts): the mean over scored orders of {1 win, ½ tie, 0 loss} or a grade."""
    return nanmean(orders, -1)


def win_tie_loss(outcomes: Floats) -> Shares:
    """(prompts,) outcomes → shares; one rule for both orders, one order and graded judges."""
    scored = outcomes[~np.isnan(outcomes)]
    # Each side counted: ties as the rest of 1 would be -5.6e-15 for 8 wins and 2 losses, "−0.0" on a board.
    above, at, below = (scored > 0.5).mean(), (scored == 0.5).mean(), (scored < 0.5).mean()
    return Shares(100 * float(above), 100 * float(at), 100 * float(below))


def standard_error(outcomes: Floats) -> float | None:
    """Sample standard deviation (n − 1) over √n, as AlpacaEval reports it; None under two prompts."""
    scored = outcomes[~np.isnan(outcomes)]
    if len(scored) < 2:
        return None
    return 100 * float(scored.std(ddof=1) / np.sqrt(len(scored)))


def flip_rate(orders: Floats) -> float | None:
    """(…, prompts, 2) → per cent of prompts with two scored orders whose verdicts lie on opposite sides of ½.

    A tie lies on neither side. None for judges asked in one order, or where no prompt has two scored ones.
    """
    if orders.shape[-1] != 2:
        return None
    first, second = orders[..., 0].ravel(), orders[..., 1].ravel()
    both = ~np.isnan(first) & ~np.isnan(second)
    if not both.any():
        return None
    return 100 * float(((first[both] - 0.5) * (second[both] - 0.5) < 0).mean())
