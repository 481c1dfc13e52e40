"""Everything a board says of one contestant's outcomes, in one record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dadpo_bench.scoring.intervals import Counts, bootstrap_means, interval_of
from dadpo_bench.scoring.outcomes import (
    Floats,
    flip_rate,
    nanmean,
    prompt_outcomes,
    standard_error,
    win_tie_loss,
)


@dataclass(frozen=True)
class Summary:
    """Per cent, but for the counts. With several seeds a prompt's outcome is first averaged over them."""

    seeds: int
    prompts: int
    """Prompts with at least one scored order under some seed."""
    unscored: int
    """(Seed, prompt) cells without any scored order."""
    win_rate: float | None
    standard_error: float | None
    ci_low: float | None
    ci_high: float | None
    n_wins: int
    """Prompts whose outcome is above ½; `n_draws` at ½, `n_wins_base` below."""
    n_wins_base: int
    n_draws: int
    win_share: float | None
    tie_share: float | None
    loss_share: float | None
    preference_rate: float | None
    """Win share minus loss share."""
    flip_rate: float | None
    half_scored: int
    """Cells with just one of two orders scored."""
    per_seed: tuple[float, ...]
    """Win rate of each training seed."""


def loses_clearly(ci_high: float | None) -> bool:
    """The rule for canaries: the upper 95 % bound of the win rate is known and below 50 per cent."""
    return ci_high is not None and ci_high < 50


def summarise(orders: Floats, counts: Counts, *, seed: int) -> Summary:
    """(seeds, prompts, orders) outcomes in [0, 1], NaN where unscored → a summary.

    `counts` are the shared bootstrap draws over the same prompts.
    """
    return summary_of(orders, bootstrap_means(prompt_outcomes(orders), counts, seed))


def summary_of(orders: Floats, means: Floats) -> Summary:
    """As `summarise`, of resampled means of the prompt outcomes that are at hand."""
    by_seed = prompt_outcomes(orders)
    by_prompt = nanmean(by_seed, 0)
    scored = int((~np.isnan(by_prompt)).sum())
    known_orders = (~np.isnan(orders)).sum(-1)
    cells: dict[str, Any] = {
        "seeds": orders.shape[0],
        "prompts": scored,
        "unscored": int((known_orders == 0).sum()),
        "half_scored": int((known_orders == 1).sum()) if orders.shape[-1] == 2 else 0,
        "n_wins": int((by_prompt > 0.5).sum()),
        "n_wins_base": int((by_prompt < 0.5).sum()),
        "n_draws": int((by_prompt == 0.5).sum()),
    }
    if not scored:
        return Summary(**{**cells, **dict.fromkeys(_RATES)}, per_seed=())
    shares = win_tie_loss(by_prompt)
    bounds = interval_of(by_seed, means)
    return Summary(
        **cells,
        win_rate=100 * float(np.nanmean(by_prompt)),
        standard_error=standard_error(by_prompt),
        ci_low=bounds[0] if bounds else None,
        ci_high=bounds[1] if bounds else None,
        win_share=shares.win,
        tie_share=shares.tie,
        loss_share=shares.loss,
        preference_rate=shares.win - shares.loss,
        flip_rate=flip_rate(orders),
        per_seed=tuple(100 * float(np.nanmean(row)) for row in by_seed if not np.isnan(row).all()),
    )


_RATES = (
    "win_rate",
    "standard_error",
    "ci_low",
    "ci_high",
    "win_share",
    "tie_share",
    "loss_share",
    "preference_rate",
    "flip_rate",
)
