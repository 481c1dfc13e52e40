"""Scores: pure functions from arrays of outcomes to the figures of a board."""

from dadpo_bench.scoring.intervals import (
    Difference,
    all_bootstrap_means,
    all_paired_differences,
    bootstrap_counts,
    bootstrap_means,
    holm,
    interval,
    paired_difference,
    sign_flip_p,
)
from dadpo_bench.scoring.length_control import (
    LengthControlled,
    length_controlled,
)
from dadpo_bench.scoring.outcomes import (
    Shares,
    flip_rate,
    nanmean,
    prompt_outcomes,
    standard_error,
    win_tie_loss,
)
from dadpo_bench.scoring.published_length_control import (
    Coefficients,
    published_win_rate,
    read_coefficients,
    read_difficulty,
)
from dadpo_bench.scoring.summary import (
    Summary,
    loses_clearly,
    summarise,
    summary_of,
)

__all__ = [
    "Coefficients",
    "Difference",
    "LengthControlled",
    "Shares",
    "Summary",
    "all_bootstrap_means",
    "all_paired_differences",
    "bootstrap_counts",
    "bootstrap_means",
    "flip_rate",
    "holm",
    "interval",
    "length_controlled",
    "loses_clearly",
    "nanmean",
    "paired_difference",
    "prompt_outcomes",
    "published_win_rate",
    "read_coefficients",
    "read_difficulty",
    "sign_flip_p",
    "standard_error",
    "summarise",
    "summary_of",
    "win_tie_loss",
]
