"""What tells a page of a living store that it is old: it changes with what the page shows, and with nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dadpo_bench.history.runs import runs_of, state_of
from dadpo_bench.store import schema

_JUDGED: tuple[Any, ...] = (schema.Verdict.judge_key, schema.Rating.judge_key, schema.Score.judge_key)
_JUDGED += (schema.Answer.prompt_key,)
_DONE: tuple[Any, ...] = (schema.Response.key, schema.Signal.tokens_key, schema.Metric.step, schema.StageTime.stage)
_DONE += (schema.Run.id, schema.Run.finished, schema.Derivation.key, schema.JudgeEvaluation.name)


class Stamp(NamedTuple):
    """Of a store at a moment. What a run is at is in neither: it is fetched by itself."""

    version: str
    """Of everything."""
    judged: str
    """Of comparisons and scores alone."""


def stamp_of(session: Session) -> Stamp:
    """Counts of what the pages show, who was judged lately, and which runs go on at which stage."""
    last = [session.scalar(select(func.max(column))) for column in (schema.Verdict.asked, schema.Rating.asked)]
    judged = "-".join(map(str, [*(_count(session, column) for column in _JUDGED), *last]))
    now = datetime.now(UTC)
    going = [f"{run.id}.{state.stage}" for run in runs_of(session) if (state := state_of(run, now)).running]
    done = "-".join(map(str, [*(_count(session, column) for column in _DONE), *going]))
    return Stamp(f"{judged}-{done}", judged)


def _count(session: Session, column: Any) -> int:
    return session.scalar(select(func.count(column))) or 0
