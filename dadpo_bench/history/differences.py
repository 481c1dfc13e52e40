"""What tells two runs apart: settings by dotted keys, and rows of their boards side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench.history.runs import RunRecord
from dadpo_bench.history.values import by_path, mapping
from dadpo_bench.recipe import FIRST
from dadpo_bench.store import schema


class Difference(NamedTuple):
    """A setting that two runs do not share; None where it is not there."""

    key: str
    """Dotted."""
    first: Any
    second: Any


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """What differs between two nested mappings, key by key; what is null or empty is as good as not there."""
    ours, theirs = dict(by_path(first)), dict(by_path(second))
    return [
        Difference(".".join(path), ours.get(path), theirs.get(path))
        for path in dict.fromkeys([*ours, *theirs])
        if ours.get(path) != theirs.get(path)
    ]


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
            (score.contestant, task, judge, score.baseline), mapping(score.values)
        )
        for score, task, judge in session.execute(query)
    }
