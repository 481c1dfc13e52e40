"""Stores as members of an array job leave them: a seed of one method each, judged against the teacher they share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dadpo_bench.scores import save_scores
from dadpo_bench.store import insert_missing, open_store, save_task, schema
from dadpo_bench.store.rows import contestant_row, response_row
from dadpo_bench.tasks import Task
from dadpo_bench.types import Prompt, Reply, Response

PROMPTS = tuple(Prompt(id=f"p{i}", turns=(f"Question {i}?",), category="trivia") for i in range(6))
TASK = Task(name="quiz", domain="out", split="heldout", prompts=PROMPTS)
JUDGE = {"key": "judge", "name": "judge", "kind": "pairwise", "proxy": False, "identity": {}}
DAY = datetime(2026, 1, 1, tzinfo=UTC)


def member(
    path: Path,
    seed: int = 0,
    *,
    outcomes: Sequence[str] = ("win", "loss", "tie"),
    teacher: str = "A teacher's answer",
    weights: str = "",
    later: int = 0,
) -> str:
    """Make one; returns what to type after `--store`. By `later` hours it was slower, and began and asked later."""
    when, model = DAY + timedelta(hours=later), weights or f"weights{seed}"
    with closing(open_store(str(path))) as store:
        with store.write() as session:
            save_task(session, TASK)
            insert_missing(session, schema.Protocol, [{"key": "protocol", "name": "quiz", "settings": _SETTINGS}])
            insert_missing(session, schema.Judge, [JUDGE])
            insert_missing(session, schema.Model, [{"key": model, "name": "m", "parameters": 8, "config": {}}])
            theirs = _answered(session, "teacher", "teacher", None, teacher, "teacher", later)
            ours = _answered(session, "dadpo", "method", seed, f"Seed {seed}", model, later)
            for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
                row = verdict(mine, other, outcomes[i % len(outcomes)], when)
                insert_missing(session, schema.Verdict, [{**row, "order": order} for order in ("ab", "ba")])
            training = {"key": f"training{seed}", "kind": "train", "model_key": model, "settings": {}, "record": {}}
            insert_missing(session, schema.Derivation, [{**training, "seconds": 60.0 + later}])
            steps = [{"derivation_key": f"training{seed}", "step": s, "values": {"loss": 1.0}} for s in (1, 2)]
            insert_missing(session, schema.Metric, steps)
            run = schema.Run(protocol_key="protocol", started=when + timedelta(minutes=seed), finished=when)
            run.arguments, run.recipe, run.environment = {"methods": ["dadpo"]}, {"name": "quiz"}, _MACHINE
            session.add(run)
            session.flush()
            session.add(schema.StageTime(run_id=run.id, position=0, stage="models", seconds=1.0, peak_bytes=8))
        save_scores(store, "protocol", "judge")
    return str(path)


_SETTINGS = {"teacher": {"model": "t"}, "student": {"model": "s"}}
_MACHINE = {
    "precision": "float32/float32",
    "device": "cpu",
    "versions": {"torch": "2", "transformers": "5"},
    "code": None,
}


def verdict(ours: str, theirs: str, outcome: str, when: datetime = DAY, raw: str = "") -> dict[str, Any]:
    """How it is stored, but for its order."""
    who = {"judge_key": "judge", "contestant_response": ours, "baseline_response": theirs}
    return {**who, "outcome": outcome, "preference": None, "raw": raw or outcome, "asked": when, "seconds": 0.5}


def _answered(session: Any, name: str, kind: str, seed: int | None, words: str, model: str, later: int) -> list[str]:
    contestant = contestant_row("protocol", name, kind, seed, {}, model)
    insert_missing(session, schema.Contestant, [contestant])
    keys = [f"{name}{seed}/{i}" for i in range(len(PROMPTS))]
    given = [
        Response(prompt=p, replies=(Reply(text=f"{words} {i}"),), seconds=1.0 + later) for i, p in enumerate(PROMPTS)
    ]
    rows = [response_row(key, response, model, model) for key, response in zip(keys, given, strict=True)]
    insert_missing(session, schema.Response, rows)
    place = {"contestant_key": contestant["key"], "task_key": TASK.key}
    answers = [{**place, "prompt_key": p.key, "response_key": key} for p, key in zip(PROMPTS, keys, strict=True)]
    insert_missing(session, schema.Answer, answers)
    return keys
