"""Arena-Hard-Auto v0.1 and v2.0 (Li et al. 2024, arXiv 2406.11939): hard prompts from Chatbot Arena.

`question.jsonl` has `uid`, `category`, `prompt`, v0.1 a `cluster` and v2.0 a `subcategory` besides. The baselines'
answers are files of their own, which need not be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dadpo_bench.errors import UserError
from dadpo_bench.records import read_records
from dadpo_bench.registry import SourceFile, TaskEntry
from dadpo_bench.tasks.data_set import Read, TaskData, assembled, checked, field, shape
from dadpo_bench.types import Prompt

HARD, CREATIVE = "o3-mini-2025-01-31", "gemini-2.0-flash-001"
"""v2.0's baselines: of hard prompts, and of creative writing."""


def _entry(version: str, count: int, summary: str, baseline: str, answers: Sequence[str], label: str) -> TaskEntry:
    folder = f"data/arena-hard-{version}"
    named = (f"question_{version}.jsonl", f"arena_hard/question_{version}.jsonl")
    return TaskEntry(
        name=f"arena_hard_{version}",
        summary=summary,
        target=f"dadpo_bench.tasks.arena_hard:read_{label}",
        source="arXiv 2406.11939; https://github.com/lmarena/arena-hard-auto",
        domain="out",
        licence="Apache-2.0",
        splits=("heldout",),
        prompts={"heldout": count},
        baseline=baseline,
        judge_mode="pairwise",
        repository="hub:lmarena-ai/arena-hard-auto",
        files={
            "heldout": (
                SourceFile(path=f"{folder}/question.jsonl", aliases=named),
                *(SourceFile(path=f"{folder}/model_answer/{name}.jsonl", required=False) for name in answers),
            )
        },
    )


arena_hard_v01 = _entry(
    "v0.1", 500, "Arena-Hard v0.1: 500 hard prompts, against gpt-4-0314", "gpt-4-0314", ["gpt-4-0314"], "v01"
)
arena_hard_v20 = _entry(
    "v2.0",
    750,
    "Arena-Hard v2.0: 500 hard prompts and 250 of creative writing, each kind against its own baseline",
    f"{HARD}, for creative writing {CREATIVE}",
    [HARD, CREATIVE],
    "v20",
)


def read_v01(paths: Sequence[Path], split: str) -> TaskData:
    """The 500 prompts; their cluster is no category."""
    return assembled(_read(paths, "cluster", ["gpt-4-0314"]), "gpt-4-0314")


def read_v20(paths: Sequence[Path], split: str) -> TaskData:
    """The 750 prompts; the category is the subcategory: coding, math, creative_writing."""
    return assembled(_read(paths, "subcategory", [HARD, CREATIVE]), arena_hard_v20.baseline)


def _read(paths: Sequence[Path], label: str, systems: Sequence[str]) -> Iterator[Read]:
    questions, *rest = paths
    given = {path.stem: _answers(path) for path in rest}
    for place, record in read_records(questions, "Arena-Hard questions"):
        prompt = to_prompt(record, place, label)
        system = systems[-1] if record["category"] == "creative_writing" else systems[0]
        yield Read(prompt, given.get(system, {}).get(prompt.id, ()))


def to_prompt(record: Any, place: str, label: str) -> Prompt:
    """`uid` and `prompt`; `label` is the field that this version's questions have and the other's do not."""
    for name in ("uid", "category", label):
        field(record, name, place)
    category = record[label] if label == "subcategory" else record["category"]
    return checked(Prompt(id=record["uid"], turns=(field(record, "prompt", place),), category=category), place)


def _answers(path: Path) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for place, record in read_records(path, "Arena-Hard answers"):
        messages = record.get("messages") if isinstance(record, Mapping) else None
        if not isinstance(messages, list) or not messages or not isinstance(messages[-1], Mapping):
            raise UserError(f"{place}: no 'messages'; {shape(record)}")
        content = messages[-1].get("content")
        found[field(record, "uid", place)] = (
            field(content, "answer", place) if isinstance(content, Mapping) else field(messages[-1], "content", place),
        )
    return found
