"""What a response looks like, whoever judges it: its length, and how often it says again what it had said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

SIZE = 4
"""Words of a gram."""


class Looks(NamedTuple):
    """Of one response, or of the sum of several."""

    characters: int
    grams: int
    """Word 4-grams, each place counted."""
    repeated: int
    """Of these, the ones that occurred before in the same response."""


def looks(replies: Sequence[str]) -> Looks:
    """The replies to every turn as one text, a blank line between turns → what it looks like."""
    text = "\n\n".join(replies)
    words = text.split()
    grams = Counter(tuple(words[i : i + SIZE]) for i in range(len(words) - SIZE + 1))
    return Looks(len(text), grams.total(), grams.total() - len(grams))
