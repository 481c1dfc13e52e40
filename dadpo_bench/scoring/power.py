"""How many prompts tell two methods apart: power of the paired test, given how their outcomes differ by prompt.

The power of the two-sided paired t-test (noncentral t). The board's sign-flip test has a point or two less, four where
differences are whole points on 150 prompts (`benchmarks/coverage_ratings.py`). It speaks of prompts alone: what
training seeds vary by, no number of prompts takes away.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from dadpo_bench.errors import UserError

_MOST = 10**9
"""Prompts; who needs more is told so."""


def power_of(sd: float, effect: float, prompts: int, *, alpha: float = 0.05) -> float:
    """Chance that `effect` between two methods gives a two-sided p below `alpha` on so many `prompts`.

    `sd` is the sample deviation of the per-prompt differences of seed means; it and `effect` have one unit (points).
    0 under the prompts at which sign flips can reach `alpha` at all (2·½^n: 6 for 5 %); from there 1 where `sd` is 0.
    """
    from scipy.stats import nct, t

    if prompts < _fewest(alpha) or not effect:
        return 0.0
    if not sd:
        return 1.0
    shift, free = abs(effect) / sd * math.sqrt(prompts), prompts - 1
    critical = float(t.ppf(1 - alpha / 2, free))
    if shift > critical + 10:  # scipy's noncentral t loses its digits out there, where power is 1 but for 1e-20
        return 1.0
    # Beyond 5 the wrong side has less than 1e-11, and scipy has NaN there.
    wrong_side = nct.cdf(-critical, free, shift) if shift < 5 else 0.0
    return float(nct.sf(critical, free, shift) + wrong_side)


def prompts_needed(sd: float, effect: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Least number of prompts on which `effect` is found with the given power; units and `sd` as in `power_of`.

    An `sd` of 0 says that two methods differ by the same on every prompt: the least at which sign flips can reach
    `alpha` will do. (Two that never differed at all also have it: ask how many prompts they were compared on.)
    Raises `UserError` for an effect of 0, a negative or unknown `sd`, a power or alpha outside (0, 1), power ≤ alpha,
    or where 10⁹ prompts would not do.
    """
    _check(sd, power, alpha)
    if not (math.isfinite(effect) and effect):
        raise UserError("an effect of 0 points is found on no number of prompts: name the least effect that matters")
    from scipy.special import ndtri

    by_normal = ((ndtri(1 - alpha / 2) + ndtri(power)) * min(sd / abs(effect), _MOST)) ** 2  # t asks for a few more
    start = max(_fewest(alpha), int(min(by_normal, 2 * _MOST)))
    return _least(lambda prompts: power_of(sd, effect, prompts, alpha=alpha) >= power, _fewest(alpha), start)


def detectable_effect(sd: float, prompts: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Least effect that so many `prompts` find with the given power, in the unit of `sd`; ∞ where none can be found.

    Raises `UserError` as `prompts_needed`.
    """
    from scipy.optimize import brentq

    _check(sd, power, alpha)
    if prompts < _fewest(alpha):
        return math.inf
    if not sd:
        return 0.0
    highest = 1.0  # in deviations
    while power_of(1.0, highest, prompts, alpha=alpha) < power:
        highest *= 2
    return sd * float(brentq(lambda effect: power_of(1.0, effect, prompts, alpha=alpha) - power, 0, highest))


def _fewest(alpha: float) -> int:
    return max(2, math.ceil(math.log2(2 / alpha)))


def _least(enough: Callable[[int], bool], fewest: int, start: int) -> int:
    """The least number from `fewest` on that is enough, where every greater one is too; searched from `start` on."""
    low, high, step = fewest - 1, start, 2
    while not enough(high):
        if high > _MOST:
            raise UserError("a billion prompts would not do: the effect is too small for how much the methods vary")
        low, high, step = high, high + step, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check(sd: float, power: float, alpha: float) -> None:
    if not (math.isfinite(sd) and sd >= 0):
        raise UserError(f"a deviation of {sd:g} is none: compare the two methods on two prompts at least")
    if not 0 < alpha < power < 1:
        raise UserError(f"alpha {alpha:g} and power {power:g}: 0 < alpha < power < 1 is needed")
