"""Intervals and tests by resampling PROMPTS, never verdict rows. Seeded: the same data give the same numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dadpo_bench.scoring.outcomes import Floats, nanmean

Counts = NDArray[np.int16]

_EXACT = 12
"""Up to so many prompts that differ the sign-flip test enumerates all flips."""

_FLIPS = 10_000
"""Flips that it draws where there are more."""

_CHUNK = 2_000_000
"""Resampled numbers held at once: 16 MB."""

_DRAWN = 200_000
"""Prompts drawn at once: what stays in a processor's cache."""


@lru_cache(maxsize=16)
def bootstrap_counts(prompts: int, draws: int, seed: int) -> Counts:
    """(draws, prompts): how often each prompt is drawn; one draw is shared by all methods."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((draws, prompts), dtype=np.int16)
    step = max(1, _DRAWN // max(1, prompts))
    for start in range(0, draws if prompts else 0, step):
        rows = counts[start : start + step]
        drawn = rng.integers(0, prompts, rows.shape)  # the same numbers as row by row
        drawn += prompts * np.arange(len(rows))[:, None]
        rows[:] = np.bincount(drawn.ravel(), minlength=rows.size).reshape(rows.shape)
    counts.flags.writeable = False
    return counts


def bootstrap_means(outcomes: Floats, counts: Counts, seed: int) -> Floats:
    """(seeds, prompts) outcomes → (draws,) resampled means in the outcomes' unit: `all_bootstrap_means` of one."""
    return all_bootstrap_means([outcomes], counts, seed)[0]


def all_bootstrap_means(outcomes: Sequence[Floats], counts: Counts, seed: int) -> list[Floats]:
    """Outcomes (seeds, prompts) of several contestants on the same prompts → of each (draws,) resampled means.

    Crossed: seeds and prompts are resampled independently, the same prompts under every seed. As in the
    estimate, a prompt's outcome is the mean over the drawn seeds that scored it and every scored prompt weighs
    the same, however many seeds scored it. A draw of NaNs alone is NaN.
    """
    draws, prompts = counts.shape
    known = [~np.isnan(given) for given in outcomes]
    # Where every seed scored the same prompts, one product for all does; the mean of cells is that of prompts.
    even = [k for k, there in enumerate(known) if (there == there[:1]).all()]
    drawn = {k: drawn_seeds(len(given), draws, seed) for k, given in enumerate(outcomes)}
    means = [np.empty(draws) for _ in outcomes]
    ends = np.cumsum([len(outcomes[k]) for k in even])
    values = np.concatenate([np.where(known[k], outcomes[k], 0.0) for k in even] or [np.zeros((0, prompts))])
    present = np.stack([known[k][0] for k in even] or [np.zeros(prompts)], axis=1).astype(float)
    step = max(1, _CHUNK // max(1, prompts))
    for start in range(0, draws, step):
        rows = slice(start, start + step)
        weights = counts[rows].astype(float)
        totals, weight = weights @ values.T, weights @ present
        for place, k in enumerate(even):
            own = totals[:, ends[place] - len(outcomes[k]) : ends[place]]
            means[k][rows] = _ratio((own * drawn[k][rows]).sum(1), weight[:, place] * drawn[k][rows].sum(1))
        for k in set(range(len(outcomes))) - set(even):
            scored_by = drawn[k][rows] @ known[k].astype(float)
            by_prompt = (drawn[k][rows] @ np.where(known[k], outcomes[k], 0.0)) / np.maximum(scored_by, 1)
            counted = np.where(scored_by == 0, 0.0, weights)
            means[k][rows] = _ratio((counted * by_prompt).sum(1), counted.sum(1))
    return means


def drawn_seeds(seeds: int, draws: int, seed: int) -> Floats:
    """(draws, seeds): how often each training seed is drawn, beside `bootstrap_counts` of the prompts."""
    return np.ones((draws, 1)) if seeds == 1 else bootstrap_counts(seeds, draws, seed + 1).astype(float)


def _ratio(total: Floats, weight: Floats) -> Floats:
    ratio: Floats = np.divide(total, weight, out=np.full(len(total), np.nan), where=weight > 0)
    return ratio


def interval(outcomes: Floats, counts: Counts, seed: int) -> tuple[float, float] | None:
    """(seeds, prompts) → 95 % percentile interval of the mean, per cent; None under two scored prompts."""
    return interval_of(outcomes, bootstrap_means(outcomes, counts, seed))


def interval_of(outcomes: Floats, means: Floats) -> tuple[float, float] | None:
    """As `interval`, of resampled means that are at hand."""
    if (~np.isnan(outcomes).all(0)).sum() < 2:
        return None
    return _percentiles(means)


def cells_interval(cells: Floats, counts: Counts, seed: int) -> tuple[float, float] | None:
    """(turns, seeds, prompts) → 95 % percentile interval of the mean over all cells that are no NaN, in their unit.

    A prompt is drawn with all its turns, crossed with seeds. None under two prompts that have a cell.
    """
    known = ~np.isnan(cells)
    if known.any((0, 1)).sum() < 2:
        return None
    total, there = np.where(known, cells, 0.0).sum(0), known.sum(0)
    drawn = drawn_seeds(cells.shape[1], len(counts), seed)
    means = np.empty(len(counts))
    step = max(1, _CHUNK // max(1, counts.shape[1]))
    for start in range(0, len(counts), step):
        rows = slice(start, start + step)
        weights = counts[rows].astype(float)
        sums, number = ((drawn[rows] * (weights @ each.T)).sum(1) for each in (total, there))
        means[rows] = _ratio(sums, number)
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return float(low), float(high)


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


def paired_difference(first: Floats, second: Floats, counts: Counts, *, seed: int) -> Difference | None:
    """Two (seeds, prompts) outcomes of the same prompts → their difference; None under two shared prompts.

    The interval is crossed over prompts and seeds: with equal numbers of seeds, seed s of one goes with seed s
    of the other; else each side's seeds are drawn apart. A single seed adds no variance: it is not known. The
    p-value flips the signs of per-prompt differences of seed means.
    """
    alike = first.shape[0] == second.shape[0]
    by_prompt = _gaps(first, second)
    shared = ~np.isnan(by_prompt)
    if shared.sum() < 2:
        return None
    if alike:
        means = bootstrap_means(first - second, counts, seed)
    else:
        sides = (np.where(shared, side, np.nan) for side in (first, second))
        ours, theirs = (bootstrap_means(side, counts, seed + i) for i, side in enumerate(sides))
        means = ours - theirs
    p_value = sign_flip_p(by_prompt[shared], seed=seed)
    return Difference(100 * float(by_prompt[shared].mean()), *_percentiles(means), p_value, int(shared.sum()))


def paired_differences(pairs: Sequence[tuple[Floats, Floats]], *, draws: int, seed: int) -> list[Difference | None]:
    """`paired_difference` of many pairs, each on prompts of its own; one product serves all of as many prompts."""
    cut: list[tuple[Floats, Floats]] = []
    by_size: dict[int, list[int]] = defaultdict(list)
    for place, (first, second) in enumerate(pairs):
        shared = ~np.isnan(_gaps(first, second))
        cut.append((first[:, shared], second[:, shared]))
        by_size[int(shared.sum())].append(place)
    found: list[Difference | None] = [None] * len(pairs)
    for prompts, places in by_size.items():
        if prompts < 2:
            continue
        counts = bootstrap_counts(prompts, draws, seed)
        even = [place for place in places if len(cut[place][0]) == len(cut[place][1])]
        uneven = [place for place in places if len(cut[place][0]) != len(cut[place][1])]
        means = dict(zip(even, all_bootstrap_means([cut[k][0] - cut[k][1] for k in even], counts, seed), strict=True))
        ours, theirs = (all_bootstrap_means([cut[k][side] for k in uneven], counts, seed + side) for side in (0, 1))
        means |= {place: one - other for place, one, other in zip(uneven, ours, theirs, strict=True)}
        gaps = np.stack([_gaps(*cut[place]) for place in places])
        for place, gap, p_value in zip(places, gaps, _sign_flips(gaps, seed=seed), strict=True):
            found[place] = Difference(100 * float(gap.mean()), *_percentiles(means[place]), p_value, prompts)
    return found


def _gaps(first: Floats, second: Floats) -> Floats:
    """Two (seeds, prompts) → (prompts,) differences of seed means, seed by seed where there are as many."""
    alike = first.shape[0] == second.shape[0]
    return nanmean(first - second, 0) if alike else nanmean(first, 0) - nanmean(second, 0)


def all_paired_differences(
    outcomes: Sequence[Floats], means: Sequence[Floats], counts: Counts, *, seed: int
) -> dict[tuple[int, int], Difference | None]:
    """`paired_difference` of every two contestants, first less second, from their `all_bootstrap_means`.

    Resampled means and flipped sums are linear in outcomes, so where contestants were scored on the same prompts
    by as many seeds, those of a difference are differences of theirs: one product serves all pairs.
    """
    alike: dict[Any, list[int]] = defaultdict(list)
    for k, given in enumerate(outcomes):
        known = ~np.isnan(given)
        even = bool((known == known[:1]).all())
        alike[(len(given), known[0].tobytes()) if even else k].append(k)
    found: dict[tuple[int, int], Difference | None] = {}
    for together in alike.values():
        if len(together) > 1:
            scored = ~np.isnan(outcomes[together[0]][0])
            by_prompt = np.stack([outcomes[k].mean(0)[scored] for k in together])
            if scored.sum() >= 2:
                tests = _all_sign_flips(by_prompt, seed=seed)
                for (one, other), p_value in tests.items():
                    gap = by_prompt[one] - by_prompt[other]
                    one, other = together[one], together[other]
                    low, high = _percentiles(means[one] - means[other])
                    found[one, other] = Difference(100 * float(gap.mean()), low, high, p_value, int(scored.sum()))
    for one, other in combinations(range(len(outcomes)), 2):
        if (one, other) not in found:
            found[one, other] = paired_difference(outcomes[one], outcomes[other], counts, seed=seed)
    return found


def _all_sign_flips(by_prompt: Floats, *, seed: int) -> dict[tuple[int, int], float]:
    """(contestants, prompts) → the two-sided `sign_flip_p` of every two."""
    sums = _flipped_sums(by_prompt.T, _FLIPS, seed)
    found = {}
    for one, other in combinations(range(len(by_prompt)), 2):
        gaps = by_prompt[one] - by_prompt[other]
        if np.count_nonzero(gaps) <= _EXACT:
            found[one, other] = sign_flip_p(gaps, seed=seed)
        else:
            found[one, other] = _sampled_p(sums[:, one] - sums[:, other], gaps)
    return found


def sign_flip_p(gaps: Floats, *, seed: int, draws: int = _FLIPS) -> float:
    """Two-sided p of mean(gaps) = 0 by flipping signs: exact for few gaps, else sampled with the +1 correction."""
    if np.count_nonzero(gaps) > _EXACT:
        return _sampled_p(_flipped_sums(gaps[:, None], draws, seed)[:, 0], gaps)
    moving = gaps[gaps != 0]
    if not len(moving):
        return 1.0
    bits = np.arange(2 ** len(moving))[:, None] >> np.arange(len(moving)) & 1
    return _as_extreme((2.0 * bits - 1.0) @ moving, gaps) / len(bits)


def _sign_flips(gaps: Floats, *, seed: int) -> list[float]:
    """(pairs, prompts) → the `sign_flip_p` of each."""
    sums = _flipped_sums(gaps.T, _FLIPS, seed)
    return [
        _sampled_p(own, gap) if np.count_nonzero(gap) > _EXACT else sign_flip_p(gap, seed=seed)
        for own, gap in zip(sums.T, gaps, strict=True)
    ]


def _flipped_sums(columns: Floats, draws: int, seed: int) -> Floats:
    """(prompts, contestants) → (draws, contestants) sums under random signs of the prompts, the same for all."""
    bits = np.random.default_rng(seed).integers(0, 2, (draws, len(columns)), dtype=np.int8)
    step = max(1, _CHUNK // len(columns))
    return np.concatenate([(2.0 * bits[i : i + step] - 1.0) @ columns for i in range(0, draws, step)])


def _sampled_p(flipped: Floats, gaps: Floats) -> float:
    return (_as_extreme(flipped, gaps) + 1) / (len(flipped) + 1)


def _as_extreme(flipped: Floats, gaps: Floats) -> int:
    # The slack keeps rounding from deciding ties.
    return int((np.abs(flipped) >= abs(gaps.sum()) - 1e-9 * np.abs(gaps).sum()).sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979), in the order given."""
    order = np.argsort(np.asarray(p_values, dtype=float), kind="stable")
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted
