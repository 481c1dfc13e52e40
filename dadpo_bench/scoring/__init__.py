"""Scores: pure functions from arrays of outcomes to the figures of a board."""

from dadpo_bench.scoring.bradley_terry import (
    Rating,
    bradley_terry_ratings,
    points,
    star_ratings,
)
from dadpo_bench.scoring.corrected import (
    MINIMUM_LABELS,
    Corrected,
    corrected_win_rate,
)
from dadpo_bench.scoring.intervals import (
    Difference,
    all_bootstrap_means,
    all_paired_differences,
    bootstrap_counts,
    bootstrap_means,
    cells_interval,
    holm,
    interval,
    paired_difference,
    paired_differences,
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
from dadpo_bench.scoring.power import (
    detectable_effect,
    power_of,
    prompts_needed,
)
from dadpo_bench.scoring.published_length_control import (
    Coefficients,
    published_win_rate,
    read_coefficients,
    read_difficulty,
)
from dadpo_bench.scoring.style import (
    FEATURES,
    STYLE_DRAWS,
    StyleRatings,
    TokenCounter,
    markdown_counts,
    style_differences,
    style_metadata,
    style_ratings,
    style_vector,
    tiktoken_counter,
)
from dadpo_bench.scoring.summary import (
    Summary,
    loses_clearly,
    summarise,
    summary_of,
)

__all__ = [
    "FEATURES",
    "MINIMUM_LABELS",
    "STYLE_DRAWS",
    "Coefficients",
    "Corrected",
    "Difference",
    "LengthControlled",
    "Rating",
    "Shares",
    "StyleRatings",
    "Summary",
    "TokenCounter",
    "all_bootstrap_means",
    "all_paired_differences",
    "bootstrap_counts",
    "bootstrap_means",
    "bradley_terry_ratings",
    "cells_interval",
    "corrected_win_rate",
    "detectable_effect",
    "flip_rate",
    "holm",
    "interval",
    "length_controlled",
    "loses_clearly",
    "markdown_counts",
    "nanmean",
    "paired_difference",
    "paired_differences",
    "points",
    "power_of",
    "prompt_outcomes",
    "prompts_needed",
    "published_win_rate",
    "read_coefficients",
    "read_difficulty",
    "sign_flip_p",
    "standard_error",
    "star_ratings",
    "style_differences",
    "style_metadata",
    "style_ratings",
    "style_vector",
    "summarise",
    "summary_of",
    "tiktoken_counter",
    "win_tie_loss",
]
