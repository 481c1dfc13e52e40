"""Runs as a store remembers them: what each was asked and did, how contestants were trained, what tells two apart."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import yaml
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench.errors import UserError
from dadpo_bench.panels import grouped
from dadpo_bench.recipe import DEFAULT, FIRST, shipped
from dadpo_bench.registry import unknown
from dadpo_bench.stages import Stage
from dadpo_bench.store import schema
from dadpo_bench.store.rows import chunks

_NAMED = 20
"""Runs that an error names: the latest."""

_DEEPEST = 20
"""Levels of settings that have keys of their own."""


class StageRecord(NamedTuple):
    """A stage that a run got through."""

    stage: str
    seconds: float
    peak_bytes: int
    """Of the process, up to its end."""


class State(NamedTuple):
    """How far a run came."""

    finished: bool
    stage: str
    """The last one where it is finished, else the one it is at or was stopped at."""
    left: bool = False
    """Whether another run went on where it ended, so that it runs no longer."""

    def __str__(self) -> str:
        if self.finished:
            return "finished" if self.stage in ("", Stage.score) else f"finished up to {self.stage}"
        return f"{'stopped' if self.left else 'running or stopped'}, at {self.stage}"


@dataclass(frozen=True)
class RunRecord:
    """One call of `dadpo-bench run`. What it holds was written by whoever made the store."""

    id: int
    protocol_key: str
    started: datetime
    finished: datetime | None
    arguments: Mapping[str, Any]
    recipe: Mapping[str, Any]
    """As it was resolved: file, `--set` and options."""
    environment: Mapping[str, Any]
    stages: tuple[StageRecord, ...]
    """In order."""
    followed: bool = False
    """Whether a later run of its protocol finished."""

    @property
    def name(self) -> str:
        """The recipe's."""
        return str(self.recipe.get("name", ""))

    @property
    def methods(self) -> tuple[str, ...]:
        """Contestants asked for."""
        return _texts(self.arguments.get("methods"))

    @property
    def seeds(self) -> int | None:
        """How many training seeds; None where that was not noted."""
        seeds = self.arguments.get("seeds")
        return seeds if isinstance(seeds, int) else None

    @property
    def judge(self) -> str:
        """As it was asked for."""
        return str(self.arguments.get("judge") or self.recipe.get("judge") or "")

    @property
    def seconds(self) -> float:
        """Of the stages it got through."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def peak_bytes(self) -> int | None:
        """Of the process; None before a stage is through."""
        return max((stage.peak_bytes for stage in self.stages), default=None)

    def as_data(self) -> dict[str, Any]:
        """For machines."""
        return {
            "id": self.id,
            "started": self.started.isoformat(),
            "finished": self.finished.isoformat() if self.finished else None,
            "recipe": self.name,
            "methods": list(self.methods),
            "seeds": self.seeds,
            "judge": self.judge,
            "state": state_of(self)._asdict(),
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "protocol": self.protocol_key,
        }


def runs_of(session: Session) -> list[RunRecord]:
    """All runs of a store, by when they began; none where it was only imported into."""
    stages: dict[int, list[StageRecord]] = defaultdict(list)
    times = select(schema.StageTime).order_by(schema.StageTime.run_id, schema.StageTime.position)
    for row in session.scalars(times):
        stages[row.run_id].append(StageRecord(row.stage, row.seconds, row.peak_bytes))
    rows = session.scalars(select(schema.Run).order_by(schema.Run.started, schema.Run.id)).all()
    return [
        RunRecord(
            row.id,
            row.protocol_key,
            _in_utc(row.started),
            _in_utc(row.finished) if row.finished else None,
            _mapping(row.arguments),
            _mapping(row.recipe),
            _mapping(row.environment),
            tuple(stages[row.id]),
            any(other.finished and other.protocol_key == row.protocol_key for other in rows[place + 1 :]),
        )
        for place, row in enumerate(rows)
    ]


def run_of(session: Session, id: str, store: str) -> RunRecord:
    """The run of that id in the store that is called so. Raises `UserError` where there is none."""
    found = {str(run.id): run for run in runs_of(session)}
    if not found:
        raise UserError(f"{store} has no runs: `dadpo-bench run` makes them")
    if id not in found:
        raise UserError(f"{store}: {unknown('run', id, list(found)[-_NAMED:])}")
    return found[id]


def state_of(run: RunRecord) -> State:
    """Whether it ended, and at which stage it is, was stopped, or ended."""
    known = [str(stage) for stage in Stage]
    last = run.stages[-1].stage if run.stages else ""
    if run.finished:
        return State(True, last)
    following = known[known.index(last) + 1 :] if last in known else known
    return State(False, next(iter(following), last), run.followed)


def command_of(run: RunRecord, store: str = "") -> str:
    """The command line that does the same into `store`, the default one if empty; empty where none was noted."""
    return command_line(run.arguments, store)


def command_line(arguments: Mapping[str, Any], store: str = "") -> str:
    """`dadpo-bench run` with arguments as a run keeps them, for a shell; empty where they name no method.

    Options that stand for settings are written as `--set`, which is what they are.
    """
    methods, changes = _texts(arguments.get("methods")), _texts(arguments.get("set"))
    recipe, judge, seeds = (arguments.get(name) for name in ("recipe", "judge", "seeds"))
    if not methods:
        return ""
    options = ["--seeds", str(seeds)] if isinstance(seeds, int) and seeds != 1 else []
    options += ["--recipe", str(recipe)] if recipe and recipe != DEFAULT else []
    chosen_otherwise = any(change.startswith("judge=") for change in changes)
    if judge and not chosen_otherwise and judge != _own_judge(str(recipe)):
        options += ["--judge", str(judge)]
    for name in ("data", "until", "launch", "log_with"):
        if value := arguments.get(name):
            options += [f"--{name.replace('_', '-')}", str(value)]
    for change in changes:
        options += ["--set", change]
    options += ["--store", store] if store else []
    dashed = any(name.startswith("-") for name in methods)
    words = [*options, "--", *methods] if dashed else [*methods, *options]
    return " ".join(map(_quoted, ["dadpo-bench", "run", *words]))


def _own_judge(recipe: str) -> str | None:
    """Of a recipe that is shipped: its judge need not be said. A file may have changed since."""
    path = shipped().get(recipe)
    judge = yaml.safe_load(path.read_text(encoding="utf-8")).get("judge") if path else None
    return judge if isinstance(judge, str) else None


def _quoted(word: str) -> str:
    """For a shell; what cannot be printed stands as its escape in bash's $'…', so that it stays in the text."""
    if word.isprintable():
        return shlex.quote(word)
    text = re.sub(r"[\\']", r"\\\g<0>", word)
    return "$'" + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text) + "'"


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
        return _count(self.record.get("steps"))

    @property
    def tokens(self) -> int | None:
        """Tokens that the policy read."""
        return _count(self.record.get("tokens"))

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
            _mapping(derivation.settings),
            derivation.key,
            derivation.seconds,
            _mapping(derivation.record),
            curves.get(derivation.key, {}),
        )
        for label, contestant, derivation in found
    ]


def curves_underway(session: Session) -> list[Mapping[str, Curve]]:
    """Of trainings that have reported steps and made no checkpoint yet, by metric."""
    made = select(schema.Derivation.key)
    unfinished = select(schema.Metric.derivation_key).where(schema.Metric.derivation_key.not_in(made)).distinct()
    return list(_curves(session, set(session.scalars(unfinished))).values())


def _curves(session: Session, keys: Collection[str]) -> dict[str, dict[str, Curve]]:
    """By derivation and metric."""
    points: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for some in chunks(sorted(keys)):
        query = select(schema.Metric.derivation_key, schema.Metric.step, schema.Metric.values).where(
            schema.Metric.derivation_key.in_(some)
        )
        for key, step, values in session.execute(query.order_by(schema.Metric.derivation_key, schema.Metric.step)):
            for name, value in _mapping(values).items():
                if (number := _number(value)) is not None:
                    points[key][name].append((step, number))
    return {
        key: {name: Curve(tuple(step for step, _ in at), tuple(value for _, value in at)) for name, at in named.items()}
        for key, named in points.items()
    }


class Difference(NamedTuple):
    """A setting that two runs do not share; None where it is not there."""

    key: str
    """Dotted."""
    first: Any
    second: Any


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """What differs between two nested mappings, key by key; what is null or empty is as good as not there."""
    ours, theirs = dict(_flat(first)), dict(_flat(second))
    return [
        Difference(".".join(path), ours.get(path), theirs.get(path))
        for path in dict.fromkeys([*ours, *theirs])
        if ours.get(path) != theirs.get(path)
    ]


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted key, without those that are null or empty."""
    return {".".join(path): value for path, value in _flat(settings)}


def _flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and len(path) < _DEEPEST:
        for key, part in value.items():
            yield from _flat(part, (*path, str(key)))
    elif value is not None:
        yield path, value


class ScoredTwice(NamedTuple):
    """A row of two boards; None where one has none of it."""

    contestant: str
    task: str
    judge: str
    baseline: str
    first: Mapping[str, Any] | None
    second: Mapping[str, Any] | None
    """Its columns, as `scores` computed them."""
    same_task: bool
    """Whether both are of the same prompts."""
    same_judge: bool
    """Whether both judges are one by all that decides a verdict."""


def compared_scores(first: Session, mine: RunRecord, second: Session, theirs: RunRecord) -> list[ScoredTwice]:
    """The rows of both runs' boards side by side: by content where they share it, else by names.

    Canaries, which meet dSFT, stand behind the others of their task.
    """
    ours, others = _scores(first, mine.protocol_key), _scores(second, theirs.protocol_key)
    left = {key: row for key, row in others.items() if key not in ours}
    by_names: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    for key, row in left.items():
        by_names[row.names].append(key)
    found = []
    for key, row in ours.items():
        partners = by_names[row.names]
        partner = key if key in others else partners.pop(0) if partners else None
        other = others[partner] if partner else None
        left.pop(partner or (), None)
        same = (True, True) if partner is None else (partner[0] == key[0], partner[1] == key[1])
        found.append(ScoredTwice(*row.names, row.values, other.values if other else None, *same))
    found += [ScoredTwice(*row.names, None, row.values, True, True) for row in left.values()]
    return sorted(found, key=lambda pair: (pair.judge, pair.task, pair.baseline == FIRST, pair.contestant))


class _Scored(NamedTuple):
    names: tuple[str, str, str, str]
    """Contestant, task, judge, baseline."""
    values: Mapping[str, Any]


def _scores(session: Session, protocol_key: str) -> dict[tuple[str, ...], _Scored]:
    """By the task's and the judge's key, baseline and contestant."""
    query = (
        select(schema.Score, schema.Task.name, schema.Judge.name)
        .join(schema.Task, schema.Task.key == schema.Score.task_key)
        .join(schema.Judge, schema.Judge.key == schema.Score.judge_key)
        .where(schema.Score.protocol_key == protocol_key)
        .order_by(schema.Score.judge_key, schema.Score.task_key, schema.Score.baseline, schema.Score.contestant)
    )
    return {
        (score.task_key, score.judge_key, score.baseline, score.contestant): _Scored(
            (score.contestant, task, judge, score.baseline), _mapping(score.values)
        )
        for score, task, judge in session.execute(query)
    }


def finite(value: Any) -> Any:
    """The same without what JSON has no word for: numbers that are none become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value


def _in_utc(moment: datetime) -> datetime:
    """SQLite keeps no zone: what it holds is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _mapping(value: Any) -> dict[str, Any]:
    """A JSON column of somebody else's store need be none."""
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(v if isinstance(v, str) else json.dumps(v) for v in value) if isinstance(value, list | tuple) else ()


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
