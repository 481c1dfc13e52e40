"""The runs: how far each came, what took how long, and of one that goes on what it has done so far."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dadpo_bench.counts import lasting
from dadpo_bench.report.charts import Chart, Line, curves
from dadpo_bench.runs import command_of, curves_underway, runs_of, state_of
from dadpo_bench.store import schema


def context(session: Session) -> dict[str, Any]:
    """What its template shows; the latest run first."""
    runs = [
        {
            "id": run.id,
            "name": run.name,
            "started": f"{run.started:%Y-%m-%d %H:%M:%S}",
            "state": str(state_of(run)),
            "command": command_of(run),
            "stages": [(s.stage, lasting(s.seconds), f"{s.peak_bytes / 1e9:.2f}") for s in run.stages],
        }
        for run in reversed(runs_of(session))
    ]
    return {"runs": runs, "kept": kept(session), "underway": list(_underway(session))}


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


def _underway(session: Session) -> list[Chart]:
    """Trainings that have reported steps and are not finished."""
    made = []
    for place, given in enumerate(curves_underway(session)):
        for name in ("loss", "margin", "accuracy", "tokens_per_second"):
            if name in given:
                line = Line("", list(given[name].steps), list(given[name].values), 0)
                number = f", training {place + 1}" if place else ""
                made.append(curves(f"{name.replace('_', ' ')}{number}", "", [line]))
    return made
