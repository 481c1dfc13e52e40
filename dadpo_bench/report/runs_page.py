"""The runs: how far each came, what took how long, and of one that goes on what it is at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dadpo_bench.counts import lasting
from dadpo_bench.history.commands import command_of
from dadpo_bench.history.runs import RunRecord, runs_of, state_of
from dadpo_bench.history.trainings import curves_underway
from dadpo_bench.report.charts import Chart, Line, curves
from dadpo_bench.store import schema


class Underway(NamedTuple):
    """A run that is not finished."""

    id: int
    name: str
    state: str
    heard: str
    """When it last told, UTC."""
    running: bool
    activities: list[tuple[str, int, int, str]]
    """What it is at, how much of how much is done, and how fast. Of one that was stopped, what it was at."""


def context(session: Session, now: datetime | None) -> dict[str, Any]:
    """What its template shows; the latest run first. Without `now` nobody is said to run."""
    found = runs_of(session)
    runs = [
        {
            "id": run.id,
            "name": run.name,
            "started": f"{run.started:%Y-%m-%d %H:%M:%S}",
            "state": str(state_of(run, now)),
            "underway": _underway(run, now) if run.activities and not state_of(run, now).running else None,
            "command": command_of(run),
            "stages": [(s.stage, lasting(s.seconds), f"{s.peak_bytes / 1e9:.2f}") for s in run.stages],
        }
        for run in reversed(found)
    ]
    return {"runs": runs, "kept": kept(session), "trainings": list(_trainings(session, found))}


def running(session: Session, now: datetime) -> list[Underway]:
    """The runs that were heard of just now."""
    return [_underway(run, now) for run in runs_of(session) if state_of(run, now).running]


def kept(session: Session) -> list[tuple[str, str]]:
    """How many of everything the store holds."""
    tables: dict[str, Any] = {
        "responses": schema.Response,
        "signals": schema.Signal,
        "training steps": schema.Metric,
        "ratings": schema.Rating,
        "verdicts": schema.Verdict,
    }
    found = []
    for name, table in tables.items():
        if count := session.scalar(select(func.count()).select_from(table)):
            found.append((name, f"{count:,}"))
    return found


def _underway(run: RunRecord, now: datetime | None) -> Underway:
    heard = f"{run.activities[0].updated:%Y-%m-%d %H:%M:%S}"
    state = state_of(run, now)
    at = [(a.label, a.done, a.total, a.pace if state.running else a.progress) for a in run.activities]
    return Underway(run.id, run.name, str(state), heard, state.running, at)


def _trainings(session: Session, runs: Sequence[RunRecord]) -> Iterator[Chart]:
    """Of those that have reported steps and are not finished."""
    labels = {a.derivation_key: a.label for run in runs for a in run.activities if a.derivation_key}
    for key, given in curves_underway(session).items():
        for name in ("loss", "margin", "accuracy", "tokens_per_second"):
            if name in given:
                line = Line("", list(given[name].steps), list(given[name].values), 0)
                title = f"{labels.get(key, 'an earlier training')}: {name.replace('_', ' ')}"
                yield curves(title, "", [line])
