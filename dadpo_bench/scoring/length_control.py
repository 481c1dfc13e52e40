"""Length-controlled win rates of one's own board: what the judge would say of answers as long as the baseline's.

logit P(m wins prompt p) = a_m·tanh(Δ_mp/σ_m) + γ_p + c_m, predicted at Δ = 0 (after Dubois et al. 2024, arXiv
2404.04475). Δ = characters of the baseline − characters of the contestant, σ_m its sample deviation (n − 1): a_m is
negative where the judge likes length.

- γ_p, a prompt's difficulty, is a ridge effect shared by the contestants. AlpacaEval scales it by a b_m of each
  contestant, from difficulties that over a hundred others have settled; from a handful of contestants b_m and γ_p are
  known up to a common factor only, and γ_p holds m's own verdict, so that b_m would chase noise. Here b = 1.
- A cell's outcome is the mean over its orders and weighs 1 (a quasi-likelihood, so grades will do). So the fitted mean
  is the raw win rate, and with no length effect, or equal lengths, LC is the raw win rate; both orders share a fold.
- Separation: a_m has the weakly informative prior N(0, 2.5²) (Gelman et al. 2008, in its normal form), c_m N(0, 100²),
  so every fit is finite. Where all of a contestant's outcomes are alike (all won, all lost, the baseline itself) length
  explains nothing: it stays out of the fit and LC is the raw win rate, in every draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dadpo_bench.scoring.intervals import Counts
from dadpo_bench.scoring.outcomes import Floats, nanmean, prompt_outcomes

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
_STEPS, _TOLERANCE = 200, 1e-6
"""Of Newton's method; it converges quadratically, so the last step's size is far above what is left."""


@dataclass(frozen=True)
class LengthControlled:
    """One contestant's; rates in per cent. None where nothing is scored, error and interval under two prompts."""

    win_rate: float | None
    standard_error: float | None
    """Deviation of the refits over resampled prompts, never that of predictions over prompts."""
    ci_low: float | None
    ci_high: float | None
    length_effect: float | None
    """a_m; None where all outcomes or all lengths are alike: nothing is controlled, `win_rate` is the raw one."""
    difficulty: bool
    """Whether the fit knew prompts' difficulty: not on a board with fewer than four contestants to fit."""
    draws: int
    """Refits behind error and interval: draws that hold a scored prompt of this contestant."""


def length_controlled(outcomes: Floats, length_gaps: Floats, counts: Counts, *, seed: int) -> list[LengthControlled]:
    """All contestants of one task together → their length-controlled win rates, in order.

    `outcomes`: (contestants, prompts) or (contestants, prompts, orders) in [0, 1], NaN where unscored. `length_gaps`:
    (contestants, prompts), characters of the baseline − characters of the contestant, known wherever an outcome is.
    Several training seeds of a contestant are averaged before, outcomes and gaps alike: their variance is then in no
    interval here. `counts`: (draws, prompts) of `bootstrap_counts`; every draw is refitted, so a few hundred rows do
    (the first rows of a larger draw are those of a smaller one); without any there is no error. `seed` deals cells to
    folds. Raises `ValueError` for a scored cell without a length.
    """
    fits = refits(outcomes, length_gaps, counts, seed=seed)
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


def refits(outcomes: Floats, length_gaps: Floats, counts: Counts, *, seed: int) -> Refits:
    """As `length_controlled`, before it is summed up.

    The penalty is chosen once, on the data; σ, coefficients and difficulties are found anew in every draw, in which a
    prompt drawn twice is two prompts of the same difficulty.
    """
    y = outcomes if outcomes.ndim == 2 else prompt_outcomes(outcomes)
    known = ~np.isnan(y)
    if np.isnan(length_gaps[known]).any():
        raise ValueError("a scored cell has no length")
    y, gaps = np.where(known, y, 0.0), np.where(known, length_gaps, 0.0)
    scored = known.sum(1)
    level = y.sum(1) / np.where(scored, scored, np.nan)
    # A share of the cells' spread rather than equality: the mean of equal numbers may be off by rounding.
    fitted = np.flatnonzero((np.abs(y - level[:, None]) * known).max(1, initial=0) > 1e-9)
    difficulty = len(fitted) >= CONTESTANTS_FOR_DIFFICULTY
    estimate, draws = level.copy(), np.where(counts @ known.T.astype(float) > 0, level, np.nan)
    effects = np.full(len(y), np.nan)
    if len(fitted):
        board = _Board(y[fitted], gaps[fitted], known[fitted])
        everything = np.ones((1, y.shape[1]))
        # The systems are too small for BLAS's threads, which beside other work cost twenty times what they do.
        with threadpool_limits(1, "blas"):
            penalty = board.penalty(seed) if difficulty else _DROPPED
            whole = board.fit(everything, penalty)
            if len(counts):
                draws[:, fitted] = np.concatenate([fit.predicted for fit in board.fits(counts, penalty, whole)])
        estimate[fitted] = whole.predicted[0]
        effects[fitted] = np.where(board.spread(everything)[0] > 0, whole.theta[0, :, 0], np.nan)
    return Refits(estimate, draws, effects, scored.astype(float), difficulty)


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


@dataclass(frozen=True)
class _Board:
    """The (M, P) cells that are fitted; `known` says which are scored."""

    y: Floats
    gaps: Floats
    known: NDArray[np.bool_]

    def spread(self, weights: Floats) -> Floats:
        """(B, P) weights → (B, M): σ, the weighted sample deviation of Δ; 0 where it does not vary."""
        total = weights @ self.known.T.astype(float)
        centre = self.gaps.sum(1) / np.maximum(self.known.sum(1), 1)
        gaps = (self.gaps - centre[:, None]) * self.known
        first, second = weights @ gaps.T, weights @ (gaps**2).T
        variance = (second - first**2 / np.maximum(total, 1)) / np.maximum(total - 1, 1)
        rounding = 1e-12 * (1 + np.abs(self.gaps).max(1) ** 2)
        spread: Floats = np.sqrt(np.where(variance > rounding, variance, 0.0))
        return spread

    def x(self, weights: Floats) -> Floats:
        """(B, P) → (B, M, P): tanh(Δ/σ), 0 throughout where Δ does not vary."""
        spread = self.spread(weights)[..., None]
        x: Floats = np.tanh(self.gaps / np.where(spread > 0, spread, np.inf))
        return x

    def fit(
        self, weights: Floats, penalty: float | Floats, start: _Fit | None = None, known: Floats | None = None
    ) -> _Fit:
        """Newton's method on B weighted boards at once: (B, P) weights, (B,) penalties, (B, M, P) cells if not all.

        The objective of a board is Σ_p w_p·(Σ_m loss_mp + penalty·γ_p²/2) + prior. Difficulties are diagonal in the
        Hessian and eliminated (Schur complement), which leaves a (2M, 2M) system. Steps are damped by log(1 + d)/d,
        d the largest change of a logit: convergent from anywhere, as the logistic loss is generalised self-concordant
        (Sun & Tran-Dinh 2019).
        """
        (contestants, prompts), boards = self.y.shape, len(weights)
        cells = self.known[None].astype(float) if known is None else known
        x = self.x(weights)
        w, ridge = weights[:, None, :], np.broadcast_to(np.asarray(penalty, dtype=float), boards)[:, None]
        theta = np.zeros((boards, contestants, 2)) if start is None else np.repeat(start.theta, boards, 0)
        gamma = np.zeros((boards, prompts)) if start is None else np.repeat(start.gamma, boards, 0)
        diagonal = np.arange(2 * contestants)
        going = np.ones(boards, dtype=bool)
        for _ in range(_STEPS):
            p = _sigmoid(theta[..., :1] * x + theta[..., 1:] + gamma[:, None, :])
            residual, h = cells * (self.y - p), cells * p * (1 - p)
            hx = h * x
            slopes = np.stack([(w * residual * x).sum(-1), (w * residual).sum(-1)], -1) - _PRIOR * theta
            pull, curve = residual.sum(1) - ridge * gamma, h.sum(1) + ridge
            cross = np.concatenate([hx, h], 1)  # (B, 2M, P): all a, then all c
            share = cross * (weights / curve)[:, None, :]
            system = -(share @ cross.swapaxes(-1, -2))
            system[:, diagonal, diagonal] += np.concatenate([(w * hx * x).sum(-1), (w * h).sum(-1)], 1)
            system[:, diagonal, diagonal] += np.repeat(_PRIOR, contestants)
            both = (w * hx).sum(-1)
            system[:, diagonal[:contestants], diagonal[contestants:]] += both
            system[:, diagonal[contestants:], diagonal[:contestants]] += both
            right = slopes.swapaxes(-1, -2).reshape(boards, -1) - (share @ pull[..., None])[..., 0]
            step = np.linalg.solve(system, right[..., None])
            step_gamma = (pull - (cross.swapaxes(-1, -2) @ step)[..., 0]) / curve
            step_theta = step[..., 0].reshape(boards, 2, contestants).swapaxes(-1, -2)
            change = np.abs(step_theta[..., :1] * x + step_theta[..., 1:] + step_gamma[:, None, :])
            size = (change * (w > 0)).max((1, 2))
            damping = np.where(size > 0, np.log1p(size) / np.where(size > 0, size, 1), 1)
            theta += damping[:, None, None] * step_theta
            gamma += damping[:, None] * step_gamma
            going = size > _TOLERANCE
            if not going.any():
                break
        theta[going] = np.nan
        of = weights @ self.known.T.astype(float)
        level = (w * self.known * _sigmoid(theta[..., 1:] + gamma[:, None, :])).sum(-1)
        return _Fit(theta, gamma, np.divide(level, of, out=np.full_like(level, np.nan), where=of > 0))

    def fits(self, counts: Counts, penalty: float, start: _Fit) -> Iterator[_Fit]:
        """A fit of every draw, some draws at a time."""
        step = max(1, _CHUNK // max(1, self.y.size))
        for first in range(0, len(counts), step):
            yield self.fit(counts[first : first + step].astype(float), penalty, start)

    def penalty(self, seed: int) -> float:
        """That with the smallest loss on held-out cells: a cell is foretold from the others of its prompt and row."""
        fold = np.random.default_rng(seed).permutation(self.y.size).reshape(self.y.shape) % _FOLDS
        weights = np.ones((_FOLDS, self.y.shape[1]))
        held = (fold[None] == np.arange(_FOLDS)[:, None, None]) & self.known
        losses = []
        for penalty in _PENALTIES:
            fit = self.fit(weights, penalty, known=(self.known & ~held).astype(float))
            logits = fit.theta[..., :1] * self.x(weights) + fit.theta[..., 1:] + fit.gamma[:, None, :]
            losses.append(float((held * (np.logaddexp(0, logits) - self.y * logits)).sum()))
        return _PENALTIES[int(np.argmin(losses))]


def _sigmoid(logits: Floats) -> Floats:
    p: Floats = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    return p
