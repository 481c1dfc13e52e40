"""A curve in one line of block characters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """At most `width` characters from the lowest value (▁) to the highest (█); means where there are more values.

    A flat curve is in the middle; where there is no finite value, a blank stands.
    """
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0) or 1.0
    columns = min(width, len(values))
    edges = [len(values) * i // columns for i in range(columns + 1)] if columns else []
    means = [_mean(values[start:end], largest) for start, end in itertools.pairwise(edges)]
    known = [mean for mean in means if mean is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return "".join(" " if mean is None else BLOCKS[_level(mean, low, high)] for mean in means)


def _mean(values: Sequence[float], largest: float) -> float | None:
    """In units of the largest, so that no sum is out of bounds."""
    known = [v / largest for v in values if math.isfinite(v)]
    return sum(known) / len(known) if known else None


def _level(mean: float, low: float, high: float) -> int:
    return round((mean - low) / (high - low) * (len(BLOCKS) - 1)) if high > low else len(BLOCKS) // 2 - 1
