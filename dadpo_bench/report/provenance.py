"""Where everything came from: versions, seeds, recipe, judge prompts by hash, prompts by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import yaml
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench import registry
from dadpo_bench.history.values import finite, in_utc
from dadpo_bench.leaderboard.facts import domain_in_words
from dadpo_bench.leaderboard.sections import Section
from dadpo_bench.store import schema


def context(session: Session, sections: Sequence[Section]) -> dict[str, Any]:
    """What its template shows."""
    protocols = {s.protocol_key: s for s in sections}
    judges = {s.judge_key: s for s in sections}
    return {
        "protocols": [_protocol(session, key, section) for key, section in protocols.items()],
        "judges": [_judge(session.get_one(schema.Judge, key)) for key in judges],
        "tasks": _tasks(session, sections),
    }


def _judge(judge: schema.Judge) -> dict[str, Any]:
    return {
        "name": judge.name,
        "key": judge.key,
        "identity": _yaml(judge.identity),
        "template": _template(judge.identity.get("template")),
    }


def _template(sha256: object) -> str | None:
    """The text of the judge prompt, where one that is installed has this hash: a store keeps the hash alone."""
    for name in registry.templates.names():
        content = registry.packaged(registry.templates[name].target)
        if hashlib.sha256(content).hexdigest() == sha256:
            return content.decode()
    return None


def _protocol(session: Session, key: str, section: Section) -> dict[str, Any]:
    runs = session.scalars(select(schema.Run).where(schema.Run.protocol_key == key).order_by(schema.Run.id)).all()
    models = session.execute(
        select(schema.Model, schema.Contestant.seed)
        .join(schema.Contestant, schema.Contestant.model_key == schema.Model.key)
        .where(schema.Contestant.protocol_key == key)
    )
    return {
        "key": key,
        "name": section.recipe,
        "warnings": section.warnings,
        "settings": _yaml(session.get_one(schema.Protocol, key).settings),
        "runs": [
            {
                "id": run.id,
                "started": f"{in_utc(run.started):%Y-%m-%d %H:%M:%S}",
                "finished": f"{in_utc(run.finished):%Y-%m-%d %H:%M:%S}" if run.finished else None,
                "environment": _yaml(run.environment),
                "recipe": _yaml(run.recipe),
            }
            for run in runs
        ],
        "models": sorted({(m.name, "–" if s is None else str(s), f"{m.parameters:,}", m.key) for m, s in models}),
    }


def _tasks(session: Session, sections: Sequence[Section]) -> list[dict[str, Any]]:
    found = []
    for task in {p.task.key: p.task for s in sections for p in s.panels}.values():
        query = select(schema.TaskPrompt.prompt_id, schema.TaskPrompt.prompt_key).where(
            schema.TaskPrompt.task_key == task.key
        )
        prompts = session.execute(query.order_by(schema.TaskPrompt.position)).all()
        row = (task.name, domain_in_words(task.domain), task.split, f"{len(prompts):,}", task.key)
        found.append({"row": row, "name": task.name, "prompts": "\n".join(f"{key} {name}" for name, key in prompts)})
    return found


def _yaml(values: Any) -> str:
    try:
        return _dumped(finite(values))
    except RecursionError:
        return "nested too deeply to be shown"


def _dumped(values: Any) -> str:
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    return text
