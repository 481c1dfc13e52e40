"""Intervals and tests by resampling PROMPTS, never verdict rows. Seeded: the same data give the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dadpo_bench.scoring.outcomes import Floats, nanmean

Counts = NDArray[np.int16]

_EXACT = 12
"""Up to so many prompts the sign-flip test enumerates all flips."""

_CHUNK = 2_000_000
"""Resampled numbers held at once: 16 MB."""


@lru_cache(maxsize=16)
def bootstrap_counts(prompts: int, draws: int, seed: int) -> Counts:
    """(draws, prompts): how often each prompt is drawn; one draw is shared by all methods."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((draws, prompts), dtype=np.int16)
    if prompts:
        for row in counts:
            row[:] = np.bincount(rng.integers(0, prompts, prompts), minlength=prompts)
    counts.flags.writeable = False
    return counts


def bootstrap_means(outcomes: Floats, counts: Counts, seed: int) -> Floats:
    """(seeds, prompts) outcomes → (draws,) resampled means in the outcomes' unit.

    Crossed: seeds and prompts are resampled independently, the same prompts under every seed. As in the
    estimate, a prompt's outcome is the mean over the drawn seeds that scored it and every scored prompt weighs
    the same, however many seeds scored it. A draw of NaNs alone is NaN.
    """
    seeds, draws = outcomes.shape[0], counts.shape[0]
    drawn = np.ones((draws, 1)) if seeds == 1 else bootstrap_counts(seeds, draws, seed + 1).astype(float)
    known = ~np.isnan(outcomes)
    values, present = np.where(known, outcomes, 0.0), known.astype(float)
    # Where every seed scored the same prompts, two small products do; the mean of cells is that of prompts.
    balanced = bool((known == known[:1]).all())
    means = np.empty(draws)
    step = max(1, _CHUNK // max(1, outcomes.shape[1]))
    for start in range(0, draws, step):
        rows = slice(start, start + step)
        weights = counts[rows].astype(float)
        if balanced:
            total = ((weights @ values.T) * drawn[rows]).sum(1)
            weight = ((weights @ present.T) * drawn[rows]).sum(1)
        else:
            scored_by = drawn[rows] @ present
            weights[scored_by == 0] = 0
            by_prompt = (drawn[rows] @ values) / np.maximum(scored_by, 1)
            total, weight = (weights * by_prompt).sum(1), weights.sum(1)
        means[rows] = np.divide(total, weight, out=np.full(len(total), np.nan), where=weight > 0)
    return means


def interval(outcomes: Floats, counts: Counts, seed: int) -> tuple[float, float] | None:
    """(seeds, prompts) → 95 % percentile interval of the mean, per cent; None under two scored prompts."""
    if (~np.isnan(outcomes).all(0)).sum() < 2:
        return None
    return _percentiles(bootstrap_means(outcomes, counts, seed))


def _percentiles(means: Floats) -> tuple[float, float]:
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return 100 * float(low), 100 * float(high)


class Difference(NamedTuple):
    """First minus second on shared prompts, percentage points."""

    estimate: float
    low: float
    high: float
    p_value: float
    prompts: int


def paired_difference(
    first: Floats,
    second: Floats,
    counts: Counts,
    *,
    seed: int,
    alternative: Literal["two-sided", "less"] = "two-sided",
) -> Difference | None:
    """Two (seeds, prompts) outcomes of the same prompts → their difference; None under two shared prompts.

    The interval is crossed over prompts and seeds: with equal numbers of seeds, seed s of one goes with seed s
    of the other; else each side's seeds are drawn apart. A single seed adds no variance: it is not known. The
    p-value flips the signs of per-prompt differences of seed means: `less` asks whether the first is worse.
    """
    alike = first.shape[0] == second.shape[0]
    by_prompt = nanmean(first - second, 0) if alike else nanmean(first, 0) - nanmean(second, 0)
    shared = ~np.isnan(by_prompt)
    if shared.sum() < 2:
        return None
    if alike:
        means = bootstrap_means(first - second, counts, seed)
    else:
        sides = (np.where(shared, side, np.nan) for side in (first, second))
        ours, theirs = (bootstrap_means(side, counts, seed + i) for i, side in enumerate(sides))
        means = ours - theirs
    p_value = sign_flip_p(by_prompt[shared], seed=seed, alternative=alternative)
    return Difference(100 * float(by_prompt[shared].mean()), *_percentiles(means), p_value, int(shared.sum()))


def sign_flip_p(
    gaps: Floats, *, seed: int, draws: int = 10_000, alternative: Literal["two-sided", "less"] = "two-sided"
) -> float:
    """p-value of mean(gaps) = 0 by flipping signs: exact for few gaps, else sampled with the +1 correction."""
    gaps = gaps[gaps != 0]
    if not len(gaps):
        return 1.0
    exact = len(gaps) <= _EXACT
    if exact:
        bits = np.arange(2 ** len(gaps))[:, None] >> np.arange(len(gaps)) & 1
    else:
        bits = np.random.default_rng(seed).integers(0, 2, (draws, len(gaps)), dtype=np.int8)
    step = max(1, _CHUNK // len(gaps))
    flipped = np.concatenate([(2.0 * bits[i : i + step] - 1.0) @ gaps for i in range(0, len(bits), step)])
    observed = gaps.sum()
    # The slack keeps rounding from deciding ties.
    slack = 1e-9 * np.abs(gaps).sum()
    if alternative == "less":
        extreme = int((flipped <= observed + slack).sum())
    else:
        extreme = int((np.abs(flipped) >= abs(observed) - slack).sum())
    return extreme / len(flipped) if exact else (extreme + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979), in the order given."""
    order = np.argsort(np.asarray(p_values, dtype=float), kind="stable")
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted
