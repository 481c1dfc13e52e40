"""How a text is styled, as Arena-Hard counts it, and Bradley–Terry ratings at equal style.

The counters are those of Arena-Hard v2 (lmarena/arena-hard-auto, utils/add_markdown_info.py): equal to the `metadata`
of its answer files, on any text. Style control follows its show_result.py (Li et al. 2024, arXiv 2406.11939).
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dadpo_bench.scoring.bradley_terry import SCALE, Rating, checked, fit, ratings, standings
from dadpo_bench.scoring.intervals import Counts, bootstrap_counts
from dadpo_bench.scoring.outcomes import Floats, nanmean, padded

STYLE_DRAWS = 500
"""Bootstrap draws of style-controlled ratings: each refits all comparisons, where plain ratings need their means."""

FEATURES = ("length", "headers", "lists", "bold")
"""What is controlled for: tokens, and headers, list items and bold spans a token."""

Metadata = dict[str, "int | dict[str, int]"]
"""Arena-Hard's own layout: `token_len`, `header_count` by level, `list_count` and `bold_count` by kind."""

_CODE = re.compile(r"```([^`]*)```")
_HEADERS = {f"h{level}": re.compile(rf"^#{{{level}}}\s", re.MULTILINE) for level in range(1, 7)}
# Arena-Hard's begin with ^\s*, which takes a square of time on blank lines; within the line there are as many matches.
_LISTS = {
    "ordered": re.compile(r"^[^\S\n]*\d+\.\s", re.MULTILINE),
    "unordered": re.compile(r"^[^\S\n]*[-*+]\s", re.MULTILINE),
}
_BOLD = {"**": re.compile(r"\*\*[^*\n]+\*\*"), "__": re.compile(r"__[^_\n]+__")}

_TABLES = {
    "o200k_base": "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken",
    "cl100k_base": "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken",
}
"""Where tiktoken would fetch its tables; it caches them by the sha1 of these addresses."""


class TokenCounter(NamedTuple):
    """Counts the tokens of a text; all contestants of a board are counted by one, and the board names it."""

    name: str
    count: Callable[[str], int]


def tiktoken_counter(name: str) -> TokenCounter | None:
    """The counter `o200k_base` (Arena-Hard v2's, as its metadata show) or `cl100k_base`; None where it is not at hand.

    At hand is: tiktoken is installed, and its table lies in TIKTOKEN_CACHE_DIR (or where tiktoken looks without it).
    Nothing is fetched. The `litellm` wheel carries both tables, in litellm/litellm_core_utils/tokenizers.
    """
    cache = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    folder = Path(cache) if cache else Path(tempfile.gettempdir()) / "data-gym-cache"
    if find_spec("tiktoken") is None or not (folder / hashlib.sha1(_TABLES[name].encode()).hexdigest()).is_file():
        return None
    import tiktoken

    encoding = tiktoken.get_encoding(name)
    return TokenCounter(name, lambda text: len(encoding.encode(text, disallowed_special=())))


def markdown_counts(text: str) -> Metadata:
    """Headers, list items and bold spans of a text without its code blocks, in Arena-Hard's layout."""
    # Exactly as there: the inside of each block is removed wherever it stands, its fences stay.
    for block in _CODE.findall(text):
        text = text.replace(block, "")
    patterns = {"header_count": _HEADERS, "list_count": _LISTS, "bold_count": _BOLD}
    return {name: {kind: len(p.findall(text)) for kind, p in kinds.items()} for name, kinds in patterns.items()}


def style_metadata(text: str, counter: TokenCounter) -> Metadata:
    """The `metadata` of an Arena-Hard answer."""
    return {"token_len": counter.count(text), **markdown_counts(text)}


def style_vector(metadata: Mapping[str, int | Mapping[str, int]]) -> Floats:
    """(4,): tokens, headers, list items, bold spans; of stored metadata or of `style_metadata`."""
    names = ("token_len", "header_count", "list_count", "bold_count")
    values = (metadata[name] for name in names)
    return np.array([float(v) if isinstance(v, (int, float)) else float(sum(v.values())) for v in values])


def style_differences(first: Floats, second: Floats) -> Floats:
    """(…, 4) style vectors of two responses → (…, 4) differences, each in [−1, 1].

    Tokens (a − b)/(a + b); the others' counts a token, (a − b)/(a + b + 1). 0 where both are empty; NaN stays.
    """

    def ratio(over: Floats, under: Floats) -> Floats:
        found: Floats = np.divide(over, under, out=np.where(np.isnan(over), np.nan, 0.0), where=under > 0)
        return found

    ours, theirs = (np.concatenate([v[..., :1], ratio(v[..., 1:], v[..., :1])], -1) for v in (first, second))
    return ratio(ours - theirs, ours + theirs + np.array([0.0, 1.0, 1.0, 1.0]))


class StyleRatings(NamedTuple):
    """Ratings at equal style, and what style is worth to the judge."""

    ratings: tuple[Rating, ...]
    worth: tuple[float, ...]
    """Rating points for a standard deviation more of each of FEATURES; 0 where no two responses differ in it."""
    mean_style: float
    """Rating points that the mean style difference of all comparisons is worth to their first. Arena-Hard rates at
    mean instead of equal style: in a star of pairs (contestant, baseline), its contestants are all so much higher."""
    counter: str
    """Who counted the tokens."""
    draws: int
    diverged: int
    """Draws that had no finite maximum since style separated wins from losses; they open the intervals. Where the
    estimate itself has none, its ratings are undetermined and its worth NaN."""


def style_ratings(
    pairs: NDArray[np.int_],
    outcomes: Iterable[Floats],
    differences: Iterable[Floats],
    counts: Counts,
    *,
    counter: str,
    baseline: int = 0,
    seed: int,
) -> StyleRatings:
    """Bradley–Terry with style covariates: logit P(first wins) = θ_first − θ_second + γ·z.

    `pairs`, `outcomes`, `counts` and `seed` as in `bradley_terry_ratings`; `differences` holds for each pair
    (prompts, 4) or (seeds, prompts, 4) of `style_differences`. z is a difference over its sample deviation (n − 1)
    over all scored comparisons, as in Arena-Hard, but not centred: a rating is then of equal style, whichever way
    round pairs are written. Comparisons without a style (NaN) are left out. Intervals refit the first STYLE_DRAWS of
    `counts`, crossed over seeds and prompts. Raises `ValueError` as `bradley_terry_ratings`.
    """
    scored, styles = padded(outcomes), padded(differences, 1)
    scored = np.where(np.isnan(styles).any(-1), np.nan, scored)
    by_prompt = nanmean(scored, 1)
    contestants = checked(pairs, by_prompt, baseline)
    known = ~np.isnan(scored)
    styles = np.where(known[..., None], styles, 0.0)
    spread = styles[known].std(0, ddof=1) if known.sum() > 1 else np.zeros(styles.shape[-1])
    z = np.divide(styles, spread, out=np.zeros_like(styles), where=spread > 1e-12)
    mean = z[known].mean(0) if known.any() else np.zeros(z.shape[-1])
    cells = z.reshape(len(pairs), -1, z.shape[-1])
    values = np.where(known, scored, 0.0).reshape(1, len(pairs), -1)

    def fitted(weights: Floats, initial: Floats | None = None) -> tuple[Floats, Floats]:
        """(draws, P, cells) weights → (draws, contestants), (draws, F)."""
        total = weights.sum(-1)
        means = np.divide((weights * values).sum(-1), total, out=np.full(total.shape, np.nan), where=total > 0)
        standing = standings(pairs, means, contestants, baseline)
        logits, slopes = fit(pairs, values, weights, standing, baseline, cells, initial)
        return standing + logits, slopes

    whole = _weights(known, np.ones((1, scored.shape[-1]), dtype=np.int16), None)
    (estimate,), (slopes,) = fitted(whole)
    initial = np.concatenate([estimate, slopes])
    counts = counts[:STYLE_DRAWS]
    seeds = [int(row.any(1).sum()) for row in known]
    drawn_seeds = [bootstrap_counts(max(1, n), len(counts), seed + 1) if n > 1 else None for n in seeds]
    step = max(1, 2_000_000 // max(1, known.size))
    parts = []
    for start in range(0, len(counts), step):
        rows = slice(start, start + step)
        weights = _weights(known, counts[rows], [d if d is None else d[rows] for d in drawn_seeds])
        parts.append(fitted(weights, initial))
    drawn = np.concatenate([logits for logits, _ in parts])
    diverged = int(np.isnan(np.concatenate([s for _, s in parts])).any(1).sum())
    games = (~np.isnan(by_prompt)).sum(1).astype(float)
    return StyleRatings(
        ratings(estimate, drawn, pairs, games, baseline),
        tuple((SCALE * slopes).tolist()),
        float(SCALE * (slopes @ mean)),
        counter,
        len(counts),
        diverged,
    )


def _weights(known: NDArray[np.bool_], counts: Counts, seeds: list[Counts | None] | None) -> Floats:
    """(draws, P, seeds·prompts): each drawn prompt weighs 1 in all, shared by the drawn seeds that scored it."""
    weights = np.empty((len(counts), *known.shape))
    for pair, cells in enumerate(known):
        drawn = seeds[pair] if seeds else None
        share = np.broadcast_to(cells.astype(float), (len(counts), *cells.shape)).copy()
        if drawn is not None:
            share[:, cells.any(1)] *= drawn[:, :, None]
        total = share.sum(1, keepdims=True)
        weights[:, pair] = counts[:, None, :] * np.divide(share, total, out=share, where=total > 0)
    return weights.reshape(len(counts), len(known), -1)
