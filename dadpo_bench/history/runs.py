"""Runs as a store remembers them: what each was asked, did, and is at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench.counts import lasting, pace
from dadpo_bench.errors import UserError
from dadpo_bench.history.values import count, in_utc, mapping, texts
from dadpo_bench.registry import unknown
from dadpo_bench.stages import Stage
from dadpo_bench.store import schema

_NAMED = 20
"""Runs that an error names: the latest."""


class StageRecord(NamedTuple):
    """A stage that a run got through."""

    stage: str
    seconds: float
    peak_bytes: int
    """Of the process, up to its end."""


STAGES = "stages"
"""What the first of a run's activities counts."""


class Activity(NamedTuple):
    """What a run is at, or was when it was last heard of."""

    label: str
    unit: str
    behind: int
    """Done by a process before it."""
    done: int
    """Those among them."""
    total: int
    """0 where it is not known yet."""
    began: datetime
    updated: datetime
    ended: bool
    """Whether the run stopped here, and told so."""
    derivation_key: str | None
    """Of a training; its curves are kept under it."""

    @property
    def rate(self) -> float | None:
        """Units a second; None before there is one."""
        seconds, fresh = (self.updated - self.began).total_seconds(), self.done - self.behind
        return fresh / seconds if fresh > 0 and seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """At this rate."""
        return max(0, self.total - self.done) / self.rate if self.rate and self.total else None

    @property
    def progress(self) -> str:
        """How much of how much is done."""
        return f"{self.done:,} of {self.total:,} {self.unit}" if self.total else "not begun"

    @property
    def pace(self) -> str:
        """`progress`, how fast, and the time left; of stages their number."""
        if self.unit == STAGES or self.rate is None or self.seconds_left is None:
            return self.progress
        return f"{self.progress}, {pace(self.rate)}, {lasting(self.seconds_left)} left"

    def as_data(self) -> dict[str, Any]:
        """For machines."""
        moments = {"began": self.began.isoformat(), "updated": self.updated.isoformat()}
        return {**self._asdict(), **moments, "rate": self.rate, "seconds_left": self.seconds_left}


class State(NamedTuple):
    """How far a run came."""

    finished: bool
    stage: str
    """The last one where it is finished, else the one it is at or was stopped at."""
    left: bool = False
    """Whether it runs no longer: another run went on where it ended, or it was not heard of for long."""
    running: bool = False
    """Whether it runs: it was heard of just now."""

    def __str__(self) -> str:
        if self.finished:
            return "finished" if self.stage in ("", Stage.score) else f"finished up to {self.stage}"
        return f"{'running' if self.running else 'stopped' if self.left else 'running or stopped'}, at {self.stage}"


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
    activities: tuple[Activity, ...] = ()
    """Of one that is not finished: its stage, and every bar that it shows."""

    @property
    def name(self) -> str:
        """The recipe's."""
        return str(self.recipe.get("name", ""))

    @property
    def methods(self) -> tuple[str, ...]:
        """Contestants asked for."""
        return texts(self.arguments.get("methods"))

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
            "state": state_of(self, datetime.now(UTC))._asdict(),
            "activities": [activity.as_data() for activity in self.activities],
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
    activities: dict[int, list[Activity]] = defaultdict(list)
    noted = select(schema.Activity).order_by(schema.Activity.run_id, schema.Activity.position)
    for one in session.scalars(noted):
        behind, done, total = (count(figure) or 0 for figure in (one.behind, one.done, one.total))
        began, updated = in_utc(one.began), in_utc(one.updated)
        activities[one.run_id].append(
            Activity(one.label, one.unit, behind, done, total, began, updated, one.ended, one.derivation_key)
        )
    rows = session.scalars(select(schema.Run).order_by(schema.Run.started, schema.Run.id)).all()
    return [
        RunRecord(
            row.id,
            row.protocol_key,
            in_utc(row.started),
            in_utc(row.finished) if row.finished else None,
            mapping(row.arguments),
            mapping(row.recipe),
            mapping(row.environment),
            tuple(stages[row.id]),
            any(other.finished and other.protocol_key == row.protocol_key for other in rows[place + 1 :]),
            () if row.finished else tuple(activities[row.id]),
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


SILENCE = 30.0
"""Seconds without a note after which a run is taken to have ended."""


def state_of(run: RunRecord, now: datetime | None = None) -> State:
    """Whether it ended, and at which stage it is, was stopped, or ended; without `now` nobody says that it runs."""
    known = [str(stage) for stage in Stage]
    last = run.stages[-1].stage if run.stages else ""
    if run.finished:
        return State(True, last)
    if run.activities:
        at, most = run.activities[0], timedelta(seconds=SILENCE)
        running = not at.ended and now is not None and abs(now - at.updated) < most
        left = at.ended or run.followed or now is not None
        return State(False, at.label, left and not running, running)
    following = known[known.index(last) + 1 :] if last in known else known
    return State(False, next(iter(following), last), run.followed)
