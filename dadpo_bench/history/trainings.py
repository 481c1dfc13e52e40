"""How checkpoints came about: settings, records and curves, by training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench.history.values import count, mapping, number
from dadpo_bench.panels import grouped
from dadpo_bench.recipe import FIRST
from dadpo_bench.store import schema
from dadpo_bench.store.rows import chunks


class Curve(NamedTuple):
    """A metric over a training."""

    steps: tuple[int, ...]
    values: tuple[float, ...]
    """As many; NaN where it was none."""


@dataclass(frozen=True)
class Training:
    """How one checkpoint came about."""

    contestant: str
    """As the board calls it: equal names of other settings are told apart by those."""
    name: str
    seed: int | None
    settings: Mapping[str, Any]
    """`method` among them."""
    key: str
    """Of the checkpoint; the first eight digits are in its directory's name."""
    seconds: float
    record: Mapping[str, Any]
    """What was found on the way: steps, tokens, pre-flight figures."""
    curves: Mapping[str, Curve]
    """By metric; those of validation prompts begin with `validation_` and have few steps."""

    @property
    def steps(self) -> int | None:
        """Optimiser steps."""
        return count(self.record.get("steps"))

    @property
    def tokens(self) -> int | None:
        """Tokens that the policy read."""
        return count(self.record.get("tokens"))

    def as_data(self) -> dict[str, Any]:
        """For machines."""
        return {
            "contestant": self.contestant,
            "name": self.name,
            "seed": self.seed,
            "settings": dict(self.settings),
            "checkpoint": self.key,
            "steps": self.steps,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "record": dict(self.record),
            "curves": {name: curve._asdict() for name, curve in self.curves.items()},
        }


def trainings_of(session: Session, protocol_key: str) -> list[Training]:
    """Of every contestant that was trained, each seed, dSFT first. They are entered once they have answered."""
    query = (
        select(schema.Contestant)
        .where(schema.Contestant.protocol_key == protocol_key, schema.Contestant.kind == "method")
        .order_by(schema.Contestant.name, schema.Contestant.seed, schema.Contestant.key)
    )
    contestants = sorted(session.scalars(query), key=lambda c: c.name != FIRST)
    made: dict[str, list[schema.Derivation]] = defaultdict(list)
    for models in chunks([c.model_key for c in contestants]):
        trained = select(schema.Derivation).where(
            schema.Derivation.kind == "train", schema.Derivation.model_key.in_(models)
        )
        for derivation in session.scalars(trained.order_by(schema.Derivation.key)):
            made[derivation.model_key].append(derivation)
    found = [
        (entrant.label, contestant, derivation)
        for entrant in grouped(contestants)
        for contestant in entrant.contestants
        for derivation in [d for d in made[contestant.model_key] if d.settings == contestant.settings][:1]
    ]
    curves = _curves(session, {derivation.key for *_, derivation in found})
    return [
        Training(
            label,
            contestant.name,
            contestant.seed,
            mapping(derivation.settings),
            derivation.key,
            derivation.seconds,
            mapping(derivation.record),
            curves.get(derivation.key, {}),
        )
        for label, contestant, derivation in found
    ]


def curves_underway(session: Session) -> dict[str, Mapping[str, Curve]]:
    """Of trainings that have reported steps and made no checkpoint yet: by derivation key, by metric."""
    made = select(schema.Derivation.key)
    unfinished = select(schema.Metric.derivation_key).where(schema.Metric.derivation_key.not_in(made)).distinct()
    return dict(_curves(session, set(session.scalars(unfinished))))


def _curves(session: Session, keys: Collection[str]) -> dict[str, dict[str, Curve]]:
    """By derivation and metric."""
    points: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for some in chunks(sorted(keys)):
        query = select(schema.Metric.derivation_key, schema.Metric.step, schema.Metric.values).where(
            schema.Metric.derivation_key.in_(some)
        )
        for key, step, values in session.execute(query.order_by(schema.Metric.derivation_key, schema.Metric.step)):
            for name, value in mapping(values).items():
                if (figure := number(value)) is not None:
                    points[key][name].append((step, figure))
    return {
        key: {name: Curve(tuple(step for step, _ in at), tuple(value for _, value in at)) for name, at in named.items()}
        for key, named in points.items()
    }
