"""Held-out prompts that were trained on: exact, near-duplicate, or with a passage in common.

Words are compared without case, spacing and punctuation (`tasks.wording`): those of the first turn and, where there are
more, those of the whole conversation; a later turn alone ("Shorter, please.") is nobody's property. *Exact*: the same
words in the same order. *Near-duplicate*: the Jaccard similarity of their sets of three consecutive words (Broder 1997)
reaches a threshold, computed exactly. *13-gram*: thirteen consecutive words in common (Brown et al. 2020, GPT-3,
appendix C). No embeddings.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from dadpo_bench.tasks.wording import words_of
from dadpo_bench.types import Prompt

THRESHOLD = 0.7
"""Jaccard similarity from which two prompts are near-duplicates: one word changed in twenty gives 0.71."""

SHINGLE, PASSAGE = 3, 13
_TOLD = 500
KINDS = ("exact", "near-duplicate", "13-gram")
"""Worst first."""


class Leak(NamedTuple):
    """A held-out prompt and a training prompt that it has too much in common with."""

    kind: str
    similarity: float
    """Of their shingles, 0 to 1."""
    heldout: Prompt
    train: Prompt

    @property
    def how(self) -> str:
        """The kind, with the similarity where it varies."""
        return self.kind if self.kind == KINDS[0] else f"{self.kind}, similarity {self.similarity:.2f}"


def label(prompt: Prompt, limit: int = 60) -> str:
    """The beginning of a prompt on one line, without control characters: it is somebody else's text."""
    text = "".join(c if c.isprintable() else " " for c in " / ".join(prompt.turns))
    plain = " ".join(text.split())
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"


class Overlap(NamedTuple):
    """What a training set and a held-out one have in common."""

    leaks: tuple[Leak, ...]
    """Of each held-out prompt that leaks the worst pair; worst first, then in the held-out order."""
    train: frozenset[int]
    """Places of the training prompts that any held-out prompt leaks from."""

    def count(self, kind: str) -> int:
        """How many held-out prompts leak in this way and in no worse one."""
        return sum(leak.kind == kind for leak in self.leaks)


def overlap(
    train: Sequence[Prompt],
    heldout: Sequence[Prompt],
    threshold: float = THRESHOLD,
    advance: Callable[[int], None] = lambda amount: None,
) -> Overlap:
    """Every pair of the two sets held against the three rules, by an index of the held-out prompts.

    `advance` is told of every so many training prompts.
    """
    index = _Index(heldout)
    worst: dict[int, tuple[int, float, int]] = {}
    offending = set()
    for place, prompt in enumerate(train):
        for said in _readings(prompt):
            for number, kind, similarity in index.alike(said, threshold):
                offending.add(place)
                found = (kind, -similarity, place)
                worst[number] = min(worst.get(number, found), found)
        if place % _TOLD == _TOLD - 1:
            advance(_TOLD)
    advance(len(train) % _TOLD)
    leaks = [Leak(KINDS[k], -s, heldout[number], train[place]) for number, (k, s, place) in sorted(worst.items())]
    leaks.sort(key=lambda leak: (KINDS.index(leak.kind), -leak.similarity))
    return Overlap(tuple(leaks), frozenset(offending))


def _readings(prompt: Prompt) -> list[list[str]]:
    texts = [prompt.turns[0], "\n".join(prompt.turns)][: len(prompt.turns)]
    return [words_of(text) or text.casefold().split() for text in texts]  # some are signs alone


class _Index:
    """Of the readings of all held-out prompts, by their words."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self._prompts: list[int] = []
        """By reading: the number of its prompt."""
        self._whole: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._shingles: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._passages: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._sizes: list[int] = []
        readings = ((place, said) for place, prompt in enumerate(prompts) for said in _readings(prompt))
        for number, (place, said) in enumerate(readings):
            self._prompts.append(place)
            shingles = _grams(said, SHINGLE)
            self._sizes.append(len(shingles))
            if said:
                self._whole[tuple(said)].append(number)
            for shingle in shingles:
                self._shingles[shingle].append(number)
            if len(said) >= PASSAGE:
                for passage in _grams(said, PASSAGE):
                    self._passages[passage].append(number)

    def alike(self, said: list[str], threshold: float) -> Iterator[tuple[int, int, float]]:
        """(number, place in `KINDS`, similarity) of held-out prompts that these words leak into."""
        if not said:
            return
        same = self._whole.get(tuple(said), ())
        yield from ((self._prompts[number], 0, 1.0) for number in same)
        shingles = _grams(said, SHINGLE)
        shared: Counter[int] = Counter()
        for shingle in shingles:
            if numbers := self._shingles.get(shingle):
                shared.update(numbers)
        if not shared:
            return  # who shares no three words shares no thirteen
        passages: set[int] = set()
        if self._in_a_row(said) > PASSAGE - SHINGLE:
            for passage in zip(*(said[i:] for i in range(PASSAGE)), strict=False):
                passages.update(self._passages.get(passage, ()))
        for number, common in shared.items():
            similarity = common / (len(shingles) + self._sizes[number] - common)
            if number in same:
                continue
            if similarity >= threshold:
                yield self._prompts[number], 1, similarity
            elif number in passages:
                yield self._prompts[number], 2, similarity

    def _in_a_row(self, said: list[str]) -> int:
        """The longest run of shingles, repeated ones too, each of which is in some held-out prompt."""
        longest = run = 0
        for shingle in zip(*(said[i:] for i in range(SHINGLE)), strict=False):
            run = run + 1 if shingle in self._shingles else 0
            longest = max(longest, run)
        return longest


def _grams(said: Sequence[str], size: int) -> set[tuple[str, ...]]:
    """All runs of `size` words; the whole where there are fewer."""
    return set(zip(*(said[i:] for i in range(size)), strict=False)) or {tuple(said)}
