"""Comparisons as data of pages: an index that all filters read, and texts in parts, loaded when looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench.contamination import label
from dadpo_bench.leaderboard.sections import Section
from dadpo_bench.report.comparisons import ORDERS, OUTCOMES, Comparison, details_of
from dadpo_bench.store import schema
from dadpo_bench.store.rows import chunks, to_prompt
from dadpo_bench.types import content_key

_FULL = 300
"""Comparisons of a part, at least, unless it is the last: a prompt's stay together and share its texts."""


class Part(NamedTuple):
    """Some comparisons."""

    name: str
    path: str
    comparisons: Sequence[Comparison]


def parts_of(comparisons: Sequence[Comparison]) -> list[Part]:
    """Comparisons of a prompt together, so that its text and the baseline's response are there once."""
    some: list[Comparison] = []
    found: list[list[Comparison]] = []
    for _, same in groupby(sorted(comparisons, key=lambda c: c.prompt_key), key=lambda c: c.prompt_key):
        some += same
        if len(some) >= _FULL:
            found.append(some)
            some = []
    return [_part(comparisons) for comparisons in [*found, *([some] if some else [])]]


def _part(comparisons: Sequence[Comparison]) -> Part:
    """Named by what is in it: a page that has grown old asks for a part that is not there, never for another."""
    name = content_key("part", [c.key for c in comparisons])[:12]
    return Part(name, f"data/part-{name}.js", comparisons)


def index_of(
    sections: Sequence[Section], session: Session, comparisons: Sequence[Comparison], parts: Sequence[Part]
) -> dict[str, Any]:
    """Columns of all comparisons, names by their places in lists."""
    part_of = {c.key: place for place, part in enumerate(parts) for c in part.comparisons}
    boards = {(s.protocol_key, s.judge_key): place for place, s in enumerate(sections)}
    tasks = {p.task.key: p.task.name for s in sections for p in s.panels}
    named = {
        name: list(dict.fromkeys(getattr(c, name) for c in comparisons))
        for name in ("task_key", "prompt_key", "contestant", "baseline", "category")
    }
    place = {name: {value: at for at, value in enumerate(values)} for name, values in named.items()}
    prompts = _labels(session, named["prompt_key"])
    return {
        "boards": [{"name": s.recipe, "judge": s.judge} for s in sections],
        "tasks": [tasks[key] for key in named["task_key"]],
        "prompts": [prompts[key] for key in named["prompt_key"]],
        "contestants": named["contestant"],
        "baselines": named["baseline"],
        "categories": named["category"],
        "outcomes": OUTCOMES,
        "orders": ORDERS,
        "parts": [part.name for part in parts],
        "key": [c.key for c in comparisons],
        "board": [boards[c.protocol_key, c.judge_key] for c in comparisons],
        "task": [place["task_key"][c.task_key] for c in comparisons],
        "prompt": [place["prompt_key"][c.prompt_key] for c in comparisons],
        "contestant": [place["contestant"][c.contestant] for c in comparisons],
        "seed": [c.seed for c in comparisons],
        "baseline": [place["baseline"][c.baseline] for c in comparisons],
        "category": [place["category"][c.category] for c in comparisons],
        "outcome": [OUTCOMES.index(c.outcome) for c in comparisons],
        "worth": [None if c.worth is None else round(c.worth, 4) for c in comparisons],
        "flipped": [int(c.flipped) for c in comparisons],
        "ratio": [None if c.length_ratio is None else round(c.length_ratio, 2) for c in comparisons],
        "part": [part_of[c.key] for c in comparisons],
    }


def _labels(session: Session, keys: Sequence[str]) -> dict[str, str]:
    found = {}
    for some in chunks(keys):
        for row in session.scalars(select(schema.Prompt).where(schema.Prompt.key.in_(some))):
            found[row.key] = label(to_prompt(row), 90)
    return found


def part_data(session: Session, part: Part) -> dict[str, Any]:
    """The texts of a part's comparisons: each prompt and response once."""
    details = details_of(session, part.comparisons)
    return {
        "prompts": {
            key: {"system": p.system, "turns": p.turns, "reference": p.reference, "checklist": p.checklist}
            for key, p in details.prompts.items()
        },
        "responses": {
            key: {"replies": [_reply(reply) for reply in r.replies], "seconds": r.seconds}
            for key, r in details.responses.items()
        },
        "comparisons": {
            c.key: {
                "prompt": c.prompt_key,
                "ours": c.ours,
                "theirs": c.theirs,
                "said": [said.as_data() for said in details.said[c.key]],
            }
            for c in part.comparisons
        },
    }


def _reply(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Without its token ids, but with their number, where a model sampled it."""
    return {"text": reply["text"], "cut": reply.get("finish") == "length", "tokens": len(reply.get("token_ids", ()))}
