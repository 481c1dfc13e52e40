"""What a judge said, read from the store: outcomes of pairs of responses, seen from the first one's side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench.scoring.outcomes import Floats
from dadpo_bench.store import schema
from dadpo_bench.store.rows import tuples
from dadpo_bench.types import Outcome, content_key

Places = NDArray[np.int64]
"""Places of responses among those that judgments are read of; −1 where there is none."""

_STREAMED = 20_000
"""Rows in memory at once while ratings are read."""


def places(responses: Iterable[str]) -> dict[str, int]:
    """The place of each response, by its key: judgments of many are looked up by numbers, not by keys."""
    return {key: place for place, key in enumerate(sorted(set(responses)))}


def judge_key(entry: str, identity: Mapping[str, Any]) -> str:
    """Under which the store holds what a judge said, by its entry's name and its identity."""
    return content_key("judge", entry, identity)


def members_of(session: Session, judge: schema.Judge) -> list[schema.Judge]:
    """The judges on a panel, by name; none of a judge that decides alone."""
    keys = [judge_key(entry, identity) for entry, identity in judge.identity.get("panel", ())]
    return sorted((session.get_one(schema.Judge, key) for key in keys), key=lambda member: (member.name, member.key))


class _Named(Protocol):
    @property
    def key(self) -> Any: ...
    @property
    def name(self) -> Any: ...


def told_apart(judges: Sequence[_Named]) -> list[str]:
    """Their names, of which equal ones (with other settings) show the beginning of their key, no longer than a name."""
    names = [judge.name for judge in judges]
    return [j.name if names.count(j.name) == 1 else f"{j.name[:193]} {j.key[:6]}" for j in judges]


class _Said(NamedTuple):
    """Verdicts in one order, by the pair that they are of."""

    pairs: Places
    """Sorted: place of the contestant's response · number of responses + place of the baseline's."""
    worths: Floats

    def of(self, pairs: Places) -> tuple[Floats, NDArray[np.bool_]]:
        """(worths, asked) of these pairs: NaN where nothing was said, whether asked or not."""
        if not len(self.pairs):
            return np.full(pairs.shape, np.nan), np.zeros(pairs.shape, dtype=bool)
        at = np.minimum(np.searchsorted(self.pairs, pairs), len(self.pairs) - 1)
        asked = self.pairs[at] == pairs
        return np.where(asked, self.worths[at], np.nan), asked


class Judgments:
    """One judge's judgments of some responses, given their places."""

    def __init__(self, session: Session, judge: schema.Judge, places: Mapping[str, int]) -> None:
        self.pointwise = judge.kind == "pointwise"
        self.asked = np.zeros(len(places), dtype=bool)
        """Of each response whether the judge was asked about it, whether it could say something or not."""
        self.answered_as: Counter[str] = Counter()
        """How many judgments each model gave that the endpoint says answered."""
        self.ratings: Floats = np.full(len(places), np.nan)
        """Of each response what a pointwise judge gave it; NaN where nothing."""
        self.by_turn: dict[int, list[float]] = {}
        """Of a response, by its place, the rating of each turn, where turns are rated apart; NaN of a missing one."""
        self._said: tuple[_Said, ...] = ()
        self.places = places
        if self.pointwise:
            self._read_ratings(session, judge)
        else:
            self._read_verdicts(session, judge)

    def _read_ratings(self, session: Session, judge: schema.Judge) -> None:
        row = schema.Rating
        query = select(row.response_key, row.value, row.by_turn, row.resolved_model).where(row.judge_key == judge.key)
        for key, value, by_turn, model in session.execute(query).yield_per(_STREAMED):  # by_turn is JSON
            place = self.places.get(key)
            if place is None:
                continue
            self.asked[place] = True
            if by_turn:
                self.by_turn[place] = [np.nan if turn is None else turn for turn in by_turn]
            if value is not None:
                self.ratings[place] = value
                if model:
                    self.answered_as[model] += 1

    def _read_verdicts(self, session: Session, judge: schema.Judge) -> None:
        row = schema.Verdict
        columns = (row.contestant_response, row.baseline_response, row.order, row.outcome, row.preference)
        query = select(*columns, row.resolved_model).where(row.judge_key == judge.key)
        found: dict[str, tuple[list[int], list[float]]] = {order: ([], []) for order in ("ab", "ba")}
        worth_of = {str(outcome): outcome.worth() for outcome in Outcome}
        for ours, theirs, order, outcome, preference, model in tuples(session, query):
            place, other = self.places.get(ours), self.places.get(theirs)
            if place is None:
                continue
            self.asked[place] = True
            worth = worth_of[outcome]
            if worth is not None and model:
                self.answered_as[model] += 1
            if other is not None:
                pairs, worths = found[order]
                pairs.append(place * len(self.places) + other)
                worths.append(np.nan if worth is None else worth if preference is None else preference)
        said = []
        for pairs, worths in found.values():
            sorting = np.argsort(np.array(pairs, dtype=np.int64), kind="stable")
            said.append(_Said(np.array(pairs, dtype=np.int64)[sorting], np.array(worths, dtype=float)[sorting]))
        self._said = tuple(said)

    def outcomes(self, ours: Places, theirs: Places) -> Floats:
        """Places of shape (…) → (…, orders) outcomes in [0, 1] of ours, NaN where the judge said nothing.

        Two orders where the judge was asked about one of these pairs in both, one where in one, or of ratings.
        Of these alone: others may have been asked otherwise, by another run or by `judge-eval`.
        """
        known = (ours >= 0) & (theirs >= 0)
        if self.pointwise:
            gap = self.ratings[ours] - self.ratings[theirs]
            return np.where(known, 0.5 + 0.5 * np.sign(gap), np.nan)[..., None]
        pairs = np.where(known, ours * len(self.places) + theirs, -1)
        (ab, asked_ab), (ba, asked_ba) = (said.of(pairs) for said in self._said)
        if (asked_ab & asked_ba).any():
            return np.stack([ab, ba], axis=-1)
        return np.where(asked_ab, ab, ba)[..., None]
