"""Bradley–Terry ratings of all contestants of a task, plain: ties are ½, no penalty, no covariates.

P(first wins) = σ(θ_first − θ_second); ratings are ANCHOR + SCALE·(θ − θ_baseline), Arena's scale. Fitted by Newton's
method with the damping of Sun and Tran-Dinh (2019, ν = 2), under which logistic losses converge from any start.
An infinite maximum (Ford 1957: somebody wins, or loses, all that links them to the baseline) is reported as such.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dadpo_bench.scoring.intervals import Counts, bootstrap_means
from dadpo_bench.scoring.outcomes import Floats, nanmean

ANCHOR = 1000.0
"""Rating of the baseline, by definition."""

SCALE = 400 / np.log(10)
"""Rating points a logit: 400 points more win ten times for one."""

_STEPS = 100
"""Newton's, far more than any fit with a finite maximum takes."""

_CONVERGED = 1e-5
"""Logits, of the last step. Convergence is quadratic: what is left after it is about half its square."""

_CHUNK = 2_000_000
"""Numbers of one kind held at once: 16 MB."""


class Rating(NamedTuple):
    """A contestant's rating and its 95 % interval by bootstrap over prompts; the baseline is ANCHOR without width."""

    rating: float
    """±∞: it won (lost) all that links it to the baseline. NaN: nothing links them, and no rating is invented."""
    low: float
    """−∞: an open end."""
    high: float
    """∞: an open end."""

    @property
    def standing(self) -> str:
        """`rated`, `above` or `below` (unbounded), or `undetermined`."""
        if np.isnan(self.rating):
            return "undetermined"
        return "rated" if np.isfinite(self.rating) else ("above" if self.rating > 0 else "below")

    def as_data(self) -> dict[str, Any]:
        """For machines: null for what is no number; `standing` says which kind of none."""
        ends = {"rating": self.rating, "rating_low": self.low, "rating_high": self.high}
        return {**{n: float(v) if np.isfinite(v) else None for n, v in ends.items()}, "rating_standing": self.standing}


def points(means: Floats | float) -> Floats:
    """Mean outcomes against the baseline, in [0, 1] → ratings: all there is to Bradley–Terry in a star; ±∞ at 1, 0."""
    with np.errstate(divide="ignore"):
        found: Floats = ANCHOR + SCALE * (np.log(means) - np.log1p(-np.asarray(means, dtype=float)))
    return found


def bradley_terry_ratings(
    pairs: NDArray[np.int_], outcomes: Iterable[Floats], counts: Counts, *, baseline: int = 0, seed: int
) -> tuple[Rating, ...]:
    """Ratings of contestants 0 to the highest in `pairs`, in this order.

    `pairs` (P, 2) holds who is compared, each two of them once; `outcomes` holds for each pair (prompts,) or (seeds,
    prompts) outcomes in [0, 1] of its first, NaN unscored (an array (P, prompts) will do); `counts` (draws, prompts)
    are the shared bootstrap draws. A pair weighs as many games as it has scored prompts. Several seeds are averaged
    by prompt and crossed, as everywhere (`bootstrap_means`). In a star, everyone against the baseline alone, θ is the
    logit of the mean outcome and `seed`s and prompts carry over from the win rate's interval; elsewhere 10,000 draws
    are fitted at once. A draw without a finite maximum opens the interval's end. Where all draws agree on ±∞, the
    nearer end is that of n wins of n against the baseline (Clopper and Pearson: 0.025^(1/n)), open without such games.
    Raises `ValueError` for a pair given twice or of one contestant.
    """
    by_seed = [np.atleast_2d(np.asarray(row, dtype=float)) for row in outcomes]
    by_prompt = np.stack([nanmean(row, 0) for row in by_seed])
    contestants = checked(pairs, by_prompt, baseline)
    known = ~np.isnan(by_prompt)
    mean, games = nanmean(by_prompt, 1), known.sum(1).astype(float)
    estimate = _logits(pairs, mean[None], games[None], contestants, baseline)[0]
    drawn = _logits(pairs, *_resampled(by_seed, known, counts, seed), contestants, baseline, estimate)
    return ratings(estimate, drawn, pairs, games, baseline)


def checked(pairs: NDArray[np.int_], by_prompt: Floats, baseline: int) -> int:
    """Number of contestants; raises `ValueError` for pairs that are no design."""
    if len({frozenset(pair) for pair in pairs.tolist()}) < len(pairs) or (pairs[:, 0] == pairs[:, 1]).any():
        raise ValueError("every pair of two contestants is given once: average its outcomes")
    if len(pairs) != len(by_prompt) or ((by_prompt < 0) | (by_prompt > 1)).any():
        raise ValueError("a row of outcomes in [0, 1] for every pair")
    return max(int(pairs.max(initial=0)), baseline) + 1


def ratings(
    estimate: Floats, drawn: Floats, pairs: NDArray[np.int_], games: Floats, baseline: int
) -> tuple[Rating, ...]:
    """(contestants,) and (draws, contestants) logits over the baseline's → ratings with intervals.

    `games` (P,) counts the scored prompts of each pair.
    """
    # Whole draws, never between two: there is no number between a rating and ∞. An unlinked draw bounds nothing.
    low = np.percentile(np.where(np.isnan(drawn), -np.inf, drawn), 2.5, axis=0, method="lower")
    high = np.percentile(np.where(np.isnan(drawn), np.inf, drawn), 97.5, axis=0, method="higher")
    against = np.zeros(len(estimate))
    for (first, second), played in zip(pairs, games, strict=True):
        if baseline in (first, second):
            against[second if first == baseline else first] = played
    nearest = np.full(len(estimate), -np.inf)
    won = 0.025 ** (1 / against[against > 0])
    nearest[against > 0] = np.log(won) - np.log1p(-won)
    low = np.where(low == np.inf, nearest, low)
    high = np.where(high == -np.inf, -nearest, high)
    if games.max(initial=0) < 2:  # one prompt, drawn again and again, varies in nothing
        low, high = np.full_like(low, -np.inf), np.full_like(high, np.inf)
    low[baseline] = high[baseline] = 0
    return tuple(Rating(*row) for row in (ANCHOR + SCALE * np.stack([estimate, low, high], 1)).tolist())


def star_ratings(means: Floats, drawn: Floats, games: Floats) -> tuple[Rating, ...]:
    """As `bradley_terry_ratings` where everybody meets the baseline alone, of means that are at hand.

    `means` (K,) outcomes of contestants 1 to K against the baseline, contestant 0, in [0, 1] and NaN unscored;
    `drawn` (draws, K) their resampled means; `games` (K,) scored prompts. Returns K + 1 ratings.
    """
    pairs = np.stack([np.arange(1, len(means) + 1), np.zeros(len(means), dtype=int)], axis=1)
    with np.errstate(divide="ignore"):
        estimate, logits = (np.log(m) - np.log1p(-m) for m in (means, drawn))
    baseline = np.zeros((len(drawn), 1))
    return ratings(np.append(0.0, estimate), np.hstack([baseline, logits]), pairs, games, 0)


def _resampled(by_seed: list[Floats], known: NDArray[np.bool_], counts: Counts, seed: int) -> tuple[Floats, Floats]:
    """(draws, P) mean outcomes, NaN where none is drawn, and games."""
    values = np.where(known, np.stack([row[0] for row in by_seed]), 0.0).T
    present = known.astype(float).T
    total, games = np.empty((2, len(counts), len(by_seed)))
    complete = bool(known.all())
    step = max(1, _CHUNK // max(1, counts.shape[1]))
    for start in range(0, len(counts), step):
        rows = slice(start, start + step)
        weights = counts[rows].astype(float)
        total[rows] = weights @ values
        games[rows] = counts.shape[1] if complete else weights @ present
    means = np.divide(total, games, out=np.full(total.shape, np.nan), where=games > 0)
    for pair, row in enumerate(by_seed):
        if len(row) > 1:
            means[:, pair] = bootstrap_means(row[~np.isnan(row).all(1)], counts, seed)
    return means, games


def _logits(
    pairs: NDArray[np.int_],
    means: Floats,
    games: Floats,
    contestants: int,
    baseline: int,
    initial: Floats | None = None,
) -> Floats:
    """(draws, P) mean outcomes and games → (draws, contestants) θ − θ_baseline, ±∞ and NaN where there is none."""
    star = (pairs == baseline).any(1).all()
    if star:
        found = np.full((len(means), contestants), np.nan)
        others = np.where(pairs[:, 0] == baseline, pairs[:, 1], pairs[:, 0])
        sign = np.where(pairs[:, 0] == baseline, -1.0, 1.0)
        found[:, others] = sign * (points(means) - ANCHOR) / SCALE
        found[:, baseline] = 0
        return found
    found = standings(pairs, means, contestants, baseline)
    step = max(1, _CHUNK // max(contestants**2, len(pairs)))
    for start in range(0, len(means), step):
        rows = slice(start, start + step)
        fitted, _ = fit(pairs, means[rows, :, None], games[rows, :, None], found[rows], baseline, initial=initial)
        found[rows] += fitted
    return found


def standings(pairs: NDArray[np.int_], means: Floats, contestants: int, baseline: int) -> Floats:
    """(draws, P) mean outcomes → (draws, contestants): 0 finite, ±∞ above and below all that is, NaN not linked.

    Finite is who both beat the baseline and lost to it, at least in part and over others: then, and only then, the
    likelihood has a maximum (Ford 1957).
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order

    first, second = pairs.T
    found = np.full((len(means), contestants), np.nan)
    same: dict[bytes, int] = {}  # draws differ in few patterns of who took a point of whom: mostly there is one
    for draw, took in enumerate(np.hstack([means > 0, means < 1])):
        before = same.setdefault(took.tobytes(), draw)
        if before < draw:
            found[draw] = found[before]
            continue
        row = found[draw]
        ends = np.concatenate([first, second])[took], np.concatenate([second, first])[took]
        beats = csr_array((np.ones(len(ends[0])), ends), shape=(contestants, contestants))
        worse, better = np.zeros((2, contestants), dtype=bool)
        worse[breadth_first_order(beats, baseline, return_predecessors=False)] = True
        better[breadth_first_order(csr_array(beats.T), baseline, return_predecessors=False)] = True
        row[better & ~worse], row[worse & ~better], row[better & worse] = np.inf, -np.inf, 0
    return found


def fit(
    pairs: NDArray[np.int_],
    outcomes: Floats,
    weights: Floats,
    standing: Floats,
    baseline: int,
    covariates: Floats | None = None,
    initial: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Maximum-likelihood logits of many draws at once: (draws, contestants) over the baseline's, (draws, F) slopes.

    logit P = θ_first − θ_second + γ·z, of `outcomes` (draws or 1, P, cells) in [0, 1] with `weights` (draws, P, cells)
    and `covariates` z (P, cells, F); `standing` (draws, contestants) as of `standings`: only comparisons of the finite
    ones are fitted, others stay 0. NaN where a draw does not converge: its covariates separate wins from losses.
    """
    z = np.zeros((*outcomes.shape[1:], 0)) if covariates is None else covariates
    (draws, contestants), slopes = standing.shape, z.shape[-1]
    first, second = pairs.T
    free = standing == 0
    weights = weights * (free[:, first] & free[:, second])[..., None]
    free[:, baseline] = False
    fixed = np.concatenate([~free, np.zeros((draws, slopes), dtype=bool)], 1)
    incidence = np.zeros((len(pairs), contestants))
    incidence[np.arange(len(pairs)), first], incidence[np.arange(len(pairs)), second] = 1, -1
    moments = np.concatenate(
        [np.ones((*z.shape[:2], 1)), z, (z[..., :, None] * z[..., None, :]).reshape(*z.shape[:2], -1)], -1
    )
    reach = np.abs(z).max((0, 1), initial=0)
    found = np.zeros((draws, contestants + slopes))
    if initial is not None:
        found[:] = np.where(np.isfinite(initial), initial, 0)
        found[:, :contestants][~free] = 0
    active = np.arange(draws)
    for _ in range(_STEPS):
        if not len(active):
            break
        now = slice(None) if len(active) == draws else active
        theta, gamma = found[active, :contestants], found[active, contestants:]
        logits = (theta[:, first] - theta[:, second])[..., None]
        if slopes:
            logits = logits + (z @ gamma.T).transpose(2, 0, 1)
        chance = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
        residual = weights[now] * ((outcomes if len(outcomes) == 1 else outcomes[now]) - chance)
        gradient = _gradient(residual, moments[..., : 1 + slopes], incidence)
        hessian = _hessian(weights[now] * chance * (1 - chance), moments, incidence, pairs, slopes)
        # The others that stay where they are have no weight.
        gradient[:, baseline] = hessian[:, baseline] = hessian[:, :, baseline] = 0
        # On the diagonal alone and of the Hessian alone: a direction that no datum speaks of gets a step of 0.
        hessian[:, np.arange(hessian.shape[1]), np.arange(hessian.shape[1])] += np.where(fixed[now], 1.0, 1e-10)
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        moved = step[:, :contestants]
        size = np.abs(moved[:, first] - moved[:, second]).max(1) + np.abs(step[:, contestants:]) @ reach
        found[active] += step * np.where(size > 0, np.log1p(size) / np.maximum(size, 1e-300), 1.0)[:, None]
        active = active[size > _CONVERGED]
    found[active] = np.nan
    return found[:, :contestants], found[:, contestants:]


def _gradient(residual: Floats, moments: Floats, incidence: Floats) -> Floats:
    """(draws, P, cells) weighted residuals → (draws, contestants + F)."""
    if moments.shape[-1] == 1:
        plain: Floats = residual.sum(-1) @ incidence
        return plain
    sums = residual.transpose(1, 0, 2) @ moments
    return np.concatenate([sums[..., 0].T @ incidence, sums[..., 1:].sum(0)], 1)


def _hessian(curvature: Floats, moments: Floats, incidence: Floats, pairs: NDArray[np.int_], slopes: int) -> Floats:
    """(draws, P, cells) weights·p·(1 − p) → (draws, contestants + F, contestants + F)."""
    contestants = incidence.shape[1]
    by_pair = curvature.sum(-1)
    hessian = np.zeros((len(by_pair), contestants + slopes, contestants + slopes))
    first, second = pairs.T
    hessian[:, first, second] = hessian[:, second, first] = -by_pair
    hessian[:, np.arange(contestants), np.arange(contestants)] = by_pair @ np.abs(incidence)
    if slopes:
        sums = curvature.transpose(1, 0, 2) @ moments
        mixed = np.einsum("pk,pdf->dkf", incidence, sums[..., 1 : 1 + slopes])
        hessian[:, :contestants, contestants:] = mixed
        hessian[:, contestants:, :contestants] = mixed.transpose(0, 2, 1)
        hessian[:, contestants:, contestants:] = sums[..., 1 + slopes :].sum(0).reshape(-1, slopes, slopes)
    return hessian
