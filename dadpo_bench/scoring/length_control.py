"""Length-controlled win rates of one's own board: what the judge would say of answers as long as the baseline's.

logit P(m wins prompt p) = a_m·tanh(Δ_mp/σ_m) + γ_p + c_m, predicted at Δ = 0 (after Dubois et al. 2024, arXiv
2404.04475). Δ = characters of the baseline − characters of the contestant, σ_m its sample deviation (n − 1): a_m is
negative where the judge likes length.

- γ_p, a prompt's difficulty, is a ridge effect shared by the contestants. AlpacaEval scales it by a b_m of each
  contestant, from difficulties that over a hundred others have settled; from a handful of contestants b_m and γ_p are
  known up to a common factor only, and γ_p holds m's own verdict, so that b_m would chase noise. Here b = 1.
- A cell's outcome is the mean over its orders and over the training seeds that were scored, and so is its gap. It
  weighs 1 (a quasi-likelihood, so grades will do). So the fitted mean is the raw win rate, and with no length effect,
  or equal lengths, LC is the raw win rate; orders and seeds share a fold.
- Separation: a_m has the weakly informative prior N(0, 2.5²) (Gelman et al. 2008, in its normal form), c_m N(0, 100²),
  so every fit is finite. Where all of a contestant's outcomes are alike (all won, all lost, the baseline itself) length
  explains nothing: it stays out of the fit and LC is the raw win rate, in every draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from dadpo_bench.scoring.intervals import Counts, drawn_seeds
from dadpo_bench.scoring.outcomes import Floats, nanmean, padded

CONTESTANTS_FOR_DIFFICULTY = 4
"""With fewer, a prompt's difficulty can hardly be told from the verdicts themselves: it is dropped."""

_PRIOR = np.array([1 / 2.5**2, 1 / 100**2])
"""Precisions of a and c."""
_DROPPED = 1e12
"""A ridge that leaves no difficulty."""
_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, _DROPPED)
"""1/variance of difficulty on the logit scale: deviations of 3 down to a tenth, and none."""
_FOLDS = 5
_CHUNK = 100_000
"""Cells in one batch of fits: their arrays stay in the processor's cache."""
_STEPS, _TOLERANCE = 200, 1e-4
"""Of Newton's method; it converges quadratically, so the last step's size is far above what is left."""


@dataclass(frozen=True)
class LengthControlled:
    """One contestant's; rates in per cent. None where nothing is scored, error and interval under two prompts."""

    win_rate: float | None
    standard_error: float | None
    """Deviation of the refits over resampled prompts and seeds, never that of predictions over prompts."""
    ci_low: float | None
    ci_high: float | None
    length_effect: float | None
    """a_m; None where all outcomes or all lengths are alike: nothing is controlled, `win_rate` is the raw one."""
    difficulty: bool
    """Whether the fit knew prompts' difficulty: not on a board with fewer than four contestants to fit."""
    draws: int
    """Refits behind error and interval: draws that hold a scored prompt of this contestant."""


def length_controlled(
    outcomes: Iterable[Floats],
    length_gaps: Iterable[Floats],
    counts: Counts,
    *,
    seed: int,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> list[LengthControlled]:
    """All contestants of one task together → their length-controlled win rates, in order.

    `outcomes`: of each contestant (prompts,) or (seeds, prompts) in [0, 1], NaN where unscored. `length_gaps`: alike,
    characters of the baseline − characters of the contestant, known wherever an outcome is. `counts`: (draws, prompts)
    of `bootstrap_counts`, crossed with as many draws of the training seeds as everywhere (`all_bootstrap_means`); every
    draw is refitted, so a few hundred rows do (the first rows of a larger draw are those of a smaller one); without any
    there is no error. `seed` draws seeds and deals cells to folds. `told` hears how many fits of how many are done.
    Raises `ValueError` for a scored cell without a length.
    """
    fits = refits(outcomes, length_gaps, counts, seed=seed, told=told)
    drawn = (~np.isnan(fits.draws)).sum(0)
    rates = (100 * shares for shares in (fits.win_rates, *interval(fits)))
    columns = zip(*rates, fits.length_effects, drawn, strict=True)
    return [
        LengthControlled(
            _known(rate), _known(error), _known(low), _known(high), _known(effect), fits.difficulty, int(n)
        )
        for rate, error, low, high, effect, n in columns
    ]


def _known(figure: float) -> float | None:
    return None if np.isnan(figure) else float(figure)


class Refits(NamedTuple):
    """What a board's figures are taken from; shares in [0, 1]."""

    win_rates: Floats
    """(contestants,), NaN where nothing is scored."""
    draws: Floats
    """(draws, contestants) refitted, NaN where a draw holds nothing of a contestant."""
    length_effects: Floats
    """(contestants,), NaN where not fitted."""
    prompts: Floats
    """(contestants,) scored."""
    difficulty: bool


def refits(
    outcomes: Iterable[Floats],
    length_gaps: Iterable[Floats],
    counts: Counts,
    *,
    seed: int,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Refits:
    """As `length_controlled`, before it is summed up.

    The penalty is chosen once, on the data; σ, coefficients and difficulties are found anew in every draw, in which a
    prompt drawn twice is two prompts of the same difficulty.
    """
    by_seed = [np.atleast_2d(row) for row in outcomes]
    y, gaps = padded(by_seed), padded(length_gaps)
    known = ~np.isnan(y)
    if np.isnan(gaps[known]).any():
        raise ValueError("a scored cell has no length")
    y, gaps = np.where(known, y, 0.0), np.where(known, gaps, 0.0)
    answered = known.any(1)
    level = nanmean(nanmean(padded(by_seed), 1), 1)
    # A share of the cells' spread rather than equality: the mean of equal numbers may be off by rounding.
    fitted = np.flatnonzero((np.abs(y - level[:, None, None]) * known).max((1, 2), initial=0) > 1e-9)
    difficulty = len(fitted) >= CONTESTANTS_FOR_DIFFICULTY
    estimate, draws = level.copy(), np.where(counts @ answered.T.astype(float) > 0, level, np.nan)
    effects = np.full(len(y), np.nan)
    if len(fitted):
        seeds = [len(by_seed[place]) for place in fitted]
        board = _Board(y[fitted], gaps[fitted], known[fitted].astype(float))
        cells, everything = board.cells(), np.ones((1, y.shape[-1]))
        searched = _FOLDS * len(_PENALTIES) if difficulty else 0
        total = searched + len(counts)
        # The systems are too small for BLAS's threads, which beside other work cost twenty times what they do.
        with threadpool_limits(1, "blas"):
            penalty = board.penalty(seed, lambda done: told(done, total)) if difficulty else _DROPPED
            whole = board.fit(cells, everything, penalty)
            done = 0
            for fit in board.fits(counts, _drawn(seeds, len(counts), seed), penalty, whole):
                draws[done : done + len(fit.predicted), fitted] = fit.predicted
                done += len(fit.predicted)
                told(searched + done, total)
        estimate[fitted] = whole.predicted[0]
        effects[fitted] = np.where(cells.spread(everything)[0] > 0, whole.theta[0, :, 0], np.nan)
    return Refits(estimate, draws, effects, answered.sum(1).astype(float), difficulty)


def _drawn(seeds: list[int], draws: int, seed: int) -> Floats | None:
    """(draws, M, S): how often each seed of each contestant is drawn; None where nobody has two."""
    if max(seeds) == 1:
        return None
    drawn = np.zeros((draws, len(seeds), max(seeds)))
    for place, own in enumerate(seeds):
        drawn[:, place, :own] = drawn_seeds(own, draws, seed)
    return drawn


def interval(fits: Refits) -> tuple[Floats, Floats, Floats]:
    """Standard error and bounds of a 95 % interval, (contestants,) each, shares; NaN under two scored prompts or draws.

    ± 1.96 standard errors on the logit scale (delta method): few refits give a deviation well and a 2.5th percentile
    badly, and near 0 and 1, where estimates are skewed, it covers better (`benchmarks/coverage.py`).
    """
    p, drawn = fits.win_rates, (~np.isnan(fits.draws)).sum(0)
    enough = (fits.prompts > 1) & (drawn > 1)
    centred = np.where(np.isnan(fits.draws), 0, fits.draws - nanmean(fits.draws, 0))
    error = np.where(enough, np.sqrt((centred**2).sum(0) / np.maximum(drawn - 1, 1)), np.nan)
    # A rate of exactly 0 or 1 is a contestant's who is not fitted: it does not vary.
    inside = enough & (p > 0) & (p < 1)
    p = np.where(inside, p, 0.5)
    middle, reach = np.log(p / (1 - p)), 1.96 * error / (p * (1 - p))
    low, high = (np.where(inside, _sigmoid(middle + side), fits.win_rates) for side in (-reach, reach))
    return error, np.where(enough, low, np.nan), np.where(enough, high, np.nan)


class _Fit(NamedTuple):
    """B fits of M contestants on P prompts."""

    theta: Floats
    """(B, M, 2): a and c; NaN where Newton's method did not end."""
    gamma: Floats
    """(B, P)"""
    predicted: Floats
    """(B, M): mean prediction at Δ = 0 over a contestant's scored prompts, each as often as it was drawn."""


class _Cells(NamedTuple):
    """What is fitted, seeds averaged, of each draw or of all alike: (B or 1, M, P) each; 0 where nothing is known."""

    y: Floats
    gaps: Floats
    known: Floats
    """1 where scored, else 0."""

    def of(self, weights: Floats) -> Floats:
        """(B, P) weights → (B, M): those of the prompts that a contestant was scored on, summed."""
        return _weighed(weights, self.known)

    def spread(self, weights: Floats) -> Floats:
        """(B, P) weights → (B, M): σ, the weighted sample deviation of Δ; 0 where it does not vary."""
        total = self.of(weights)
        centre = self.gaps.sum(-1) / np.maximum(self.known.sum(-1), 1)
        gaps = (self.gaps - centre[..., None]) * self.known
        first, second = _weighed(weights, gaps), _weighed(weights, gaps**2)
        variance = (second - first**2 / np.maximum(total, 1)) / np.maximum(total - 1, 1)
        rounding = 1e-12 * (1 + np.abs(self.gaps).max(-1) ** 2)
        spread: Floats = np.sqrt(np.where(variance > rounding, variance, 0.0))
        return spread

    def x(self, weights: Floats) -> Floats:
        """(B, P) → (B, M, P): tanh(Δ/σ), 0 throughout where Δ does not vary."""
        spread = self.spread(weights)[..., None]
        x: Floats = np.tanh(self.gaps / np.where(spread > 0, spread, np.inf))
        return x


def _weighed(weights: Floats, cells: Floats) -> Floats:
    """(B, P) weights and (B or 1, M, P) → (B, M) sums over prompts."""
    found: Floats = (weights[:, None] @ cells.swapaxes(-1, -2))[:, 0]
    return found


@dataclass(frozen=True)
class _Board:
    """The (M, S, P) outcomes, gaps and whether they are known, 0 where they are not."""

    y: Floats
    gaps: Floats
    known: Floats

    def cells(self, seeds: Floats | None = None) -> _Cells:
        """Each seed once, or (B, M, S) times: a prompt's outcome is the mean over the drawn seeds that scored it."""
        drawn = np.ones((1, *self.y.shape[:2])) if seeds is None else seeds
        y, gaps, count = ((drawn[:, :, None] @ part)[:, :, 0] for part in (self.y, self.gaps, self.known))
        often = np.maximum(count, 1)
        return _Cells(y / often, gaps / often, (count > 0).astype(float))

    def fit(
        self, cells: _Cells, weights: Floats, penalty: float, start: _Fit | None = None, held: Floats | float = 0.0
    ) -> _Fit:
        """Newton's method on B weighted boards at once: (B, P) weights, one start or B, (B, M, P) cells held out.

        The objective of a board is Σ_p w_p·(Σ_m loss_mp + penalty·γ_p²/2) + prior. Difficulties are diagonal in the
        Hessian and eliminated (Schur complement), which leaves a (2M, 2M) system. Steps are damped by log(1 + d)/d,
        d the largest change of a logit: convergent from anywhere, as the logistic loss is generalised self-concordant
        (Sun & Tran-Dinh 2019).
        """
        boards, (_, contestants, prompts) = len(weights), cells.y.shape
        x, known, drawn = cells.x(weights), cells.known - held, weights[:, None] > 0
        theta, gamma = np.zeros((boards, contestants, 2)), np.zeros((boards, prompts))
        if start is not None:
            theta[:], gamma[:] = start.theta, start.gamma
        diagonal = np.arange(2 * contestants)
        going = np.ones(boards, dtype=bool)
        for _ in range(_STEPS):
            p = _sigmoid(theta[..., :1] * x + theta[..., 1:] + gamma[:, None, :])
            residual, h = known * (cells.y - p), known * p * (1 - p)
            hx = h * x
            slopes = np.stack([_weighed(weights, residual * x), _weighed(weights, residual)], -1) - _PRIOR * theta
            pull, curve = residual.sum(1) - penalty * gamma, h.sum(1) + penalty
            cross = np.concatenate([hx, h], 1)  # (B, 2M, P): all a, then all c
            share = cross * (weights / curve)[:, None, :]
            system = -(share @ cross.swapaxes(-1, -2))
            system[:, diagonal, diagonal] += np.concatenate([_weighed(weights, hx * x), _weighed(weights, h)], 1)
            system[:, diagonal, diagonal] += np.repeat(_PRIOR, contestants)
            both = _weighed(weights, hx)
            system[:, diagonal[:contestants], diagonal[contestants:]] += both
            system[:, diagonal[contestants:], diagonal[:contestants]] += both
            right = slopes.swapaxes(-1, -2).reshape(boards, -1) - (share @ pull[..., None])[..., 0]
            step = np.linalg.solve(system, right[..., None])
            step_gamma = (pull - (cross.swapaxes(-1, -2) @ step)[..., 0]) / curve
            step_theta = step[..., 0].reshape(boards, 2, contestants).swapaxes(-1, -2)
            change = np.abs(step_theta[..., :1] * x + step_theta[..., 1:] + step_gamma[:, None, :])
            size = (change * drawn).max((1, 2))
            damping = np.where(size > 0, np.log1p(size) / np.where(size > 0, size, 1), 1)
            theta += damping[:, None, None] * step_theta
            gamma += damping[:, None] * step_gamma
            going = size > _TOLERANCE
            if not going.any():
                break
        theta[going] = np.nan
        of = cells.of(weights)
        level = _sigmoid(theta[..., 1:] + gamma[:, None, :])
        predicted = _weighed(weights, cells.known * level)
        return _Fit(theta, gamma, np.divide(predicted, of, out=np.full_like(of, np.nan), where=of > 0))

    def fits(self, counts: Counts, seeds: Floats | None, penalty: float, start: _Fit) -> Iterator[_Fit]:
        """A fit of every draw of prompts and seeds, some draws at a time."""
        cells, step = self.cells(), max(1, _CHUNK // (self.y.shape[0] * self.y.shape[-1]))
        for first in range(0, len(counts), step):
            rows = slice(first, first + step)
            drawn = cells if seeds is None else self.cells(seeds[rows])
            yield self.fit(drawn, counts[rows].astype(float), penalty, start)

    def penalty(self, seed: int, told: Callable[[int], None] = lambda done: None) -> float:
        """That with the smallest loss on held-out cells: a cell is foretold from the others of its prompt and row."""
        cells = self.cells()
        fold = np.random.default_rng(seed).permutation(cells.y.size).reshape(cells.y.shape) % _FOLDS
        weights = np.ones((_FOLDS, cells.y.shape[-1]))
        held = (fold == np.arange(_FOLDS)[:, None, None]) * cells.known
        x, losses = cells.x(weights), list[float]()
        fit = None
        for penalty in _PENALTIES:
            fit = self.fit(cells, weights, penalty, fit, held)
            logits = fit.theta[..., :1] * x + fit.theta[..., 1:] + fit.gamma[:, None, :]
            losses.append(float((held * (np.logaddexp(0, logits) - cells.y * logits)).sum()))
            told(_FOLDS * len(losses))
        return _PENALTIES[int(np.argmin(losses))]


def _sigmoid(logits: Floats) -> Floats:
    p: Floats = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    return p
