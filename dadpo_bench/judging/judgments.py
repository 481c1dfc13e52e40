"""What a judge said, read from the store: outcomes of pairs of responses, seen from the first one's side."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench.scoring.outcomes import Floats
from dadpo_bench.store import schema
from dadpo_bench.types import content_key

Pair = tuple[str, str]
"""Keys of the contestant's response and of the baseline's."""


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
    """Their names, of which equal ones (with other settings) show the beginning of their key."""
    names = [judge.name for judge in judges]
    return [j.name if names.count(j.name) == 1 else f"{j.name} {j.key[:6]}" for j in judges]


class Judgments:
    """One judge's judgments of some responses."""

    def __init__(self, session: Session, judge: schema.Judge, responses: Collection[str]) -> None:
        self.pointwise = judge.kind == "pointwise"
        self.asked: set[str] = set()
        """Responses that the judge was asked about, whether it could say something or not."""
        self.answered_as: Counter[str] = Counter()
        """How many judgments each model gave that the endpoint says answered."""
        self._ratings: dict[str, float] = {}
        self._verdicts: dict[Pair, dict[str, float]] = defaultdict(dict)
        if self.pointwise:
            for rating in session.scalars(select(schema.Rating).where(schema.Rating.judge_key == judge.key)):
                if rating.response_key in responses:
                    self.asked.add(rating.response_key)
                    self.answered_as[rating.resolved_model] += rating.value is not None
                    if rating.value is not None:
                        self._ratings[rating.response_key] = rating.value
        else:
            for verdict in session.scalars(select(schema.Verdict).where(schema.Verdict.judge_key == judge.key)):
                if verdict.contestant_response in responses:
                    self.asked.add(verdict.contestant_response)
                    self.answered_as[verdict.resolved_model] += verdict.worth is not None
                    worth = np.nan if verdict.worth is None else verdict.worth
                    pair = (verdict.contestant_response, verdict.baseline_response)
                    self._verdicts[pair][verdict.order] = worth
        del self.answered_as[""]

    def orders(self, pairs: Iterable[Pair]) -> int:
        """Outcomes of these pairs each: 2 where the judge was asked in both orders, 1 where in one, or of ratings.

        Of these alone: others may have been asked otherwise, by another run or by `judge-eval`.
        """
        return 2 if any(len(self._verdicts.get(pair, ())) > 1 for pair in pairs) else 1

    def outcomes(self, pairs: Sequence[Pair]) -> Floats:
        """(pairs, orders) outcomes in [0, 1] of (ours, theirs), NaN where the judge said nothing."""
        orders = self.orders(pairs)
        found = [self._outcomes(ours, theirs, orders) for ours, theirs in pairs]
        return np.array(found).reshape(len(found), orders)

    def _outcomes(self, ours: str, theirs: str, orders: int) -> list[float]:
        if self.pointwise:
            if ours not in self._ratings or theirs not in self._ratings:
                return [np.nan]
            return [0.5 + 0.5 * float(np.sign(self._ratings[ours] - self._ratings[theirs]))]
        given = self._verdicts.get((ours, theirs), {})
        if orders == 1:
            return list(given.values()) or [np.nan]
        return [given.get(order, np.nan) for order in ("ab", "ba")]
