"""Who stands on a board, and which response each gave to which prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import select

from dadpo_bench.judging.canaries import CANARIES
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.responses import Stored
from dadpo_bench.store import insert_missing, schema
from dadpo_bench.store.rows import contestant_row, response_row, to_response, upsert
from dadpo_bench.tasks import Task
from dadpo_bench.types import Prompt, content_key


def enter(
    bench: Bench,
    protocol_key: str,
    name: str,
    kind: str,
    seed: int | None,
    settings: Mapping[str, Any],
    model_key: str,
) -> str:
    """Note a contestant; returns its key, which its settings and seed are part of."""
    row = contestant_row(protocol_key, name, kind, seed, settings, model_key)
    with bench.store.write() as session:
        session.merge(schema.Contestant(**row))
    key: str = row["key"]
    return key


def answer(bench: Bench, contestant_key: str, task: Task, keys: Iterable[tuple[Prompt, str]]) -> None:
    """Note which responses a contestant gave to a task, by their keys; an earlier set is replaced."""
    place = {"contestant_key": contestant_key, "task_key": task.key}
    given = {prompt.key: key for prompt, key in keys}
    rows = [{**place, "prompt_key": prompt, "response_key": key} for prompt, key in given.items()]
    with bench.store.write() as session:
        upsert(session, schema.Answer, rows)


def answers(bench: Bench, contestant_key: str, task: Task) -> dict[str, Stored]:
    """A contestant's responses to a task by prompt key."""
    prompts: dict[str, Prompt] = {p.key: p for p in task.prompts}
    query = (
        select(schema.Response)
        .join(schema.Answer, schema.Answer.response_key == schema.Response.key)
        .where(schema.Answer.contestant_key == contestant_key, schema.Answer.task_key == task.key)
    )
    with bench.store.read() as session:
        rows = session.scalars(query).all()
        return {r.prompt_key: Stored(r.key, to_response(r, prompts[r.prompt_key])) for r in rows}


def enter_canaries(
    bench: Bench,
    protocol_key: str,
    task: Task,
    teacher: Sequence[Stored],
    baseline: Sequence[Stored],
    seed: int,
) -> dict[str, list[Stored]]:
    """Make and note the canaries' responses to the prompts that `teacher` and `baseline` answered."""
    made: dict[str, list[Stored]] = {}
    for name, make in CANARIES.items():
        model_key = f"canary:{name}"
        responses = make([s.response for s in teacher], [s.response for s in baseline])
        made[name] = [
            Stored(content_key(model_key, r.prompt.key, [reply.text for reply in r.replies]), r) for r in responses
        ]
        rows = [response_row(*s, model_key, content_key(model_key)) for s in made[name]]
        with bench.store.write() as session:
            insert_missing(session, schema.Response, rows)
        key = enter(bench, protocol_key, name, "canary", seed, {}, model_key)
        answer(bench, key, task, [(r.prompt, own) for own, r in made[name]])
    return made
