"""How far verdicts agree: with labels, with another judge, with themselves; and what they prefer beside quality.

An outcome is in [0, 1], seen from the first response: above ½ it is preferred, ½ is a tie, NaN unscored or not
labelled. Only the side of ½ counts here. Shares are per cent.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import krippendorff
import numpy as np

from dadpo_bench.scoring.intervals import bootstrap_counts
from dadpo_bench.scoring.outcomes import Floats


class Share(NamedTuple):
    """A share, its 95 % interval by bootstrap over prompts, and what it is a share of."""

    share: float
    low: float
    high: float
    pairs: int
    votes: int
    """Compared labels: more than pairs where a pair has several annotators."""


def sides(outcomes: Floats) -> Floats:
    """−1 below ½, 0 at ½, 1 above; NaN stays."""
    found: Floats = np.sign(np.asarray(outcomes, dtype=float) - 0.5)
    return found


def agreement(
    verdicts: Floats,
    labels: Floats,
    *,
    prompts: Sequence[str] | None = None,
    ties: bool = True,
    draws: int = 10_000,
    seed: int = 0,
) -> Share | None:
    """(pairs,) verdicts and (annotators, pairs) labels → share of labels that a verdict agrees with.

    Verdicts may be (annotators, pairs) too: each is compared with the label in its place. `ties=False` leaves out
    votes where either side is a tie. The interval resamples prompts, each with all votes on all its pairs: `prompts`
    names that of every pair; without it every pair is of its own. None where nothing can be compared.
    """
    ours, theirs = np.atleast_2d(sides(verdicts)), np.atleast_2d(sides(labels))
    compared = ~np.isnan(ours) & ~np.isnan(theirs)
    if not ties:
        compared = compared & (ours != 0) & (theirs != 0)
    if not compared.any():
        return None
    votes = np.where(compared, (ours == theirs).astype(float), np.nan)
    hit, weight = np.nansum(votes, 0), compared.sum(0)
    of = np.arange(len(hit)) if prompts is None else np.unique(prompts, return_inverse=True)[1]
    counts = bootstrap_counts(int(of.max()) + 1, draws, seed).astype(float)
    total = counts @ np.bincount(of, weight)
    means = np.divide(counts @ np.bincount(of, hit), total, out=np.full(draws, np.nan), where=total > 0)
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return Share(
        100 * float(hit.sum() / weight.sum()),
        100 * float(low),
        100 * float(high),
        int((weight > 0).sum()),
        int(weight.sum()),
    )


def between_annotators(labels: Floats, *, ties: bool = True) -> float | None:
    """(annotators, pairs) → mean share of pairs of annotators who agree on a pair: what a judge can be held to.

    None where no pair has two labels.
    """
    theirs = sides(labels)
    shares = []
    for column in theirs.T:
        given = column[~np.isnan(column)]
        given = given if ties else given[given != 0]
        if len(given) > 1:
            same = sum(int((given == side).sum()) * (int((given == side).sum()) - 1) for side in (-1, 0, 1))
            shares.append(same / (len(given) * (len(given) - 1)))
    return 100 * float(np.mean(shares)) if shares else None


def majority(labels: Floats) -> Floats:
    """(annotators, pairs) → (pairs,) the side that most annotators took, a tie being one; ½ where two are level."""
    given = sides(labels)
    loss, tie, win = ((given == side).sum(0) for side in (-1, 0, 1))
    found: Floats = np.where(win > np.maximum(tie, loss), 1.0, np.where(loss > np.maximum(tie, win), 0.0, 0.5))
    return np.where(np.isnan(given).all(0), np.nan, found)


def cohen_kappa(first: Floats, second: Floats) -> float | None:
    """Cohen's κ (1960) of two (pairs,) outcomes over win, tie and loss; None where chance agreement is certain."""
    ours, theirs = sides(first), sides(second)
    both = ~np.isnan(ours) & ~np.isnan(theirs)
    if not both.any():
        return None
    from sklearn.metrics import cohen_kappa_score  # two seconds that most boards do not need

    with warnings.catch_warnings():  # one category alone: not a number, which None says
        warnings.simplefilter("ignore")
        kappa = float(cohen_kappa_score(ours[both].astype(int), theirs[both].astype(int)))
    return None if np.isnan(kappa) else kappa


def krippendorff_alpha(raters: Floats) -> float | None:
    """Krippendorff's α (nominal) of (raters, pairs) outcomes, NaN where a rater said nothing.

    None where all labels are one category, or no pair has two labels.
    """
    given = sides(raters)
    known = ~np.isnan(given)
    if len(np.unique(given[known])) < 2 or not (known.sum(0) > 1).any():
        return None
    alpha = float(krippendorff.alpha(reliability_data=given, level_of_measurement="nominal"))
    return None if np.isnan(alpha) else alpha


class Accord(NamedTuple):
    """How far several judges agree on the same comparisons."""

    comparisons: int
    """Those of which at least two said something."""
    krippendorff_alpha: float | None
    pairs: tuple[tuple[str, str, float | None], ...]
    """Every two of them, and in per cent of how many comparisons they took the same side; ties are a side."""

    def __str__(self) -> str:
        alpha = "–" if self.krippendorff_alpha is None else f"{self.krippendorff_alpha:.2f}".replace("-", "−")
        shares = [f"{one}–{other} " + ("–" if s is None else f"{s:.0f} %") for one, other, s in self.pairs]
        return f"Krippendorff's α {alpha} over {self.comparisons} comparisons; {', '.join(shares)}"

    def as_data(self) -> dict[str, Any]:
        """For machines and the store."""
        pairs = [{"first": one, "second": other, "share": share} for one, other, share in self.pairs]
        return {**self._asdict(), "pairs": pairs}


def accord(names: Sequence[str], outcomes: Floats) -> Accord:
    """(judges, comparisons) outcomes, NaN where a judge said nothing → how far the judges agree."""
    return Accord(
        int(((~np.isnan(outcomes)).sum(0) > 1).sum()),
        krippendorff_alpha(outcomes),
        tuple(
            (names[one], names[other], between_annotators(outcomes[[one, other]]))
            for one, other in combinations(range(len(names)), 2)
        ),
    )


def first_shown_share(orders: Floats) -> float | None:
    """(pairs, 2) outcomes in orders ab and ba → share of decided verdicts for the response shown first; 50 is fair."""
    if orders.shape[-1] != 2:
        return None
    ab, ba = sides(orders[:, 0]), sides(orders[:, 1])
    first = np.concatenate([ab[np.abs(ab) == 1] == 1, ba[np.abs(ba) == 1] == -1])
    return 100 * float(first.mean()) if len(first) else None


def preferred_share(outcomes: Floats, first: Floats, second: Floats) -> float | None:
    """(…, pairs) outcomes, a trait of both responses → share of decided outcomes for the one that has more of it.

    Of lengths this is the preference for the longer, of 0 and 1 the preference for who has it. None where nothing is
    decided between responses that differ in the trait.
    """
    taken = sides(outcomes)
    more = np.broadcast_to(np.sign(np.asarray(first, dtype=float) - np.asarray(second, dtype=float)), taken.shape)
    decided = (np.abs(taken) == 1) & (more != 0)
    return 100 * float((taken[decided] == more[decided]).mean()) if decided.any() else None
