"""What a judge said, read from the store: outcomes of pairs of responses, seen from the first one's side."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from functools import cached_property

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench.store import schema


class Judgments:
    """One judge's judgments of some responses."""

    def __init__(self, session: Session, judge: schema.Judge, responses: Collection[str]) -> None:
        self.pointwise = judge.kind == "pointwise"
        self.asked: set[str] = set()
        """Responses that the judge was asked about, whether it could say something or not."""
        self.answered_as: Counter[str] = Counter()
        """How many judgments each model gave that the endpoint says answered."""
        self._ratings: dict[str, float] = {}
        self._verdicts: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
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

    @cached_property
    def orders(self) -> int:
        """Outcomes of a pair: 2 where the judge was asked in both orders, 1 where in one, or of ratings."""
        return 2 if any(len(given) > 1 for given in self._verdicts.values()) else 1

    def outcomes(self, ours: str, theirs: str) -> list[float]:
        """(orders,) outcomes in [0, 1] of a pair of responses, NaN where the judge said nothing."""
        if self.pointwise:
            if ours not in self._ratings or theirs not in self._ratings:
                return [np.nan]
            return [0.5 + 0.5 * float(np.sign(self._ratings[ours] - self._ratings[theirs]))]
        given = self._verdicts.get((ours, theirs), {})
        if self.orders == 1:
            return list(given.values()) or [np.nan]
        return [given.get(order, np.nan) for order in ("ab", "ba")]
