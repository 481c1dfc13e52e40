"""The judge's error corrected by a few labels: a prediction-powered win rate (Angelopoulos et al. 2023).

Labels are outcomes that are believed where the judge's are not: a human's, or a stronger judge's. They must be of
prompts chosen at random, not of those that somebody found worth a look.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dadpo_bench.errors import UserError
from dadpo_bench.scoring.outcomes import Floats, nanmean

MINIMUM_LABELS = 20
"""Under so many the interval says nothing: 24 to 40 points wide at 20 labels, 43 to 61 at 10, 51 to 71 at 8.

Measured on 800 prompts as `benchmarks/coverage_ratings.py` does, over fifteen pairs of judge and win rate.
Coverage is no bound: with the two pseudo-labels it is 94.5 per cent or more from 4 labels on. Without them it breaks
where nearly all labels agree with each other or with the judge: 63 per cent at 20 labels, 82 at 50, 90 at 200.
"""


class Corrected(NamedTuple):
    """Win rate that the labels would give over all prompts of the judge, per cent, with its 95 % interval."""

    win_rate: float
    standard_error: float
    low: float
    high: float
    labels: int
    """Prompts with label and judge's outcome: those that are used."""
    prompts: int
    """Prompts that the judge scored."""
    weight: float
    """λ, how much the judge is listened to: 0 leaves the mean label, 1 is plain prediction-powered inference."""


def corrected_win_rate(judge: Floats, labels: Floats) -> Corrected:
    """(prompts,) or (seeds, prompts) judge's outcomes and labels in [0, 1], cell by cell, NaN where there is none.

    PPI++ (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453, the mean): mean(label − λ·judge) over labelled prompts
    + λ·mean(judge) over the others, λ in [0, 1] tuned to the least variance, cov(label, judge) / ((1 + n/N)·var(judge))
    of n labelled and N other prompts. Labels correct the judge on the seeds that they are of: judge is there what it
    says of these, and what it says of all seeds less of these is added. Standard error and interval (t, n + 1 degrees
    of freedom) see two pseudo-labels more, one that the judge had all wrong each way, residuals 1 and −λ, in the manner
    of Agresti and Coull (1998): twenty labels that all agree do not prove that the next would. Several seeds add the
    variance of their mean, of seeds − 1 degrees of freedom (Welch and Satterthwaite). Both are cut to [0, 100].
    A label of a prompt that the judge did not score is left out, as that prompt is of the raw win rate.
    Raises `UserError` for fewer than MINIMUM_LABELS prompts with a used label.
    """
    from scipy.stats import t

    judge, labels = np.atleast_2d(judge), np.atleast_2d(labels)
    used = ~np.isnan(judge) & ~np.isnan(labels)
    by_prompt = nanmean(judge, 0)
    scored, labelled = ~np.isnan(by_prompt), used.any(0)
    n = int(labelled.sum())
    if n < MINIMUM_LABELS:
        raise UserError(
            f"{n} labels of prompts that the judge scored; under {MINIMUM_LABELS} the corrected interval "
            "says nothing: label more prompts, chosen at random"
        )
    # Of a prompt without a label what the judge says of the labelled seeds, each as often as it is labelled elsewhere.
    often = np.where(labelled, used, used.sum(1, keepdims=True)) * ~np.isnan(judge)
    total = np.nansum(often * judge, 0)
    said = np.divide(total, often.sum(0), out=by_prompt.copy(), where=often.any(0))
    more = by_prompt - said
    others = scored & ~labelled
    truth, predicted = nanmean(np.where(used, labels, np.nan), 0)[labelled], said[labelled]
    weight, share = 0.0, n / int(scored.sum())
    if others.sum() > 1 and said[scored].std() > 0:
        covariance = float(np.cov(truth, predicted)[0, 1])
        weight = float(np.clip(covariance / ((1 + n / others.sum()) * said[scored].var(ddof=1)), 0, 1))
    residuals = truth - weight * predicted + share * more[labelled]
    seen = np.append(residuals, [1.0, -weight])
    rest, spread = 0.0, float(seen.var(ddof=1)) / len(seen)
    if others.any():
        unlabelled = weight * said[others] + (1 - share) * more[others]
        rest = float(unlabelled.mean())
        spread += float(unlabelled.var(ddof=1)) / len(unlabelled) if len(unlabelled) > 1 else 0.0
    by_seed = nanmean(judge, 1)
    by_seed = by_seed[~np.isnan(by_seed)]
    uneven = float(by_seed.var(ddof=1)) / len(by_seed) if len(by_seed) > 1 else 0.0
    freedom = (spread + uneven) ** 2 / (spread**2 / (len(seen) - 1) + uneven**2 / max(1, len(by_seed) - 1))
    error, centre = float(np.sqrt(spread + uneven)), rest + float(seen.mean())
    reach = float(t.ppf(0.975, freedom)) * error
    rate, low, high = (
        100 * min(max(value, 0.0), 1.0) for value in (rest + float(residuals.mean()), centre - reach, centre + reach)
    )
    return Corrected(rate, 100 * error, low, high, n, int(scored.sum()), weight)
