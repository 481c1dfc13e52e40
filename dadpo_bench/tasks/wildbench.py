"""WildBench v2 (Lin et al. 2024, arXiv 2406.04770): 1,024 tasks of real users, with checklists.

Records have `session_id`, `conversation_input` (messages, the last one the user's), `checklist`, `primary_tag`. A
`Prompt` holds no answers of others, so the exchanges before the last message, where there are any, stand above it in
one text; WildBench gives them as messages. Its authors rate answers from 1 to 10 by the checklist, or against three
systems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dadpo_bench.errors import UserError
from dadpo_bench.records import read_records
from dadpo_bench.registry import SourceFile, TaskEntry
from dadpo_bench.tasks.data_set import Read, TaskData, assembled, checked, field, shape, texts
from dadpo_bench.types import Prompt

wildbench_v2 = TaskEntry(
    name="wildbench_v2",
    summary="WildBench v2: 1,024 tasks of real users with a checklist each, rated from 1 to 10",
    target="dadpo_bench.tasks.wildbench:read",
    source="arXiv 2406.04770; https://github.com/allenai/WildBench",
    domain="out",
    licence="AI2 ImpACT licence, low risk",
    splits=("heldout",),
    prompts={"heldout": 1024},
    judge_mode="single-answer",
    repository="hub:allenai/WildBench",
    files={"heldout": (SourceFile(path="v2/test-*.parquet", aliases=("wildbench_v2.*", "v2.*")),)},
)

_SPEAKERS = {"user": "User", "assistant": "Assistant"}


def read(paths: Sequence[Path], split: str) -> TaskData:
    """The tasks, each with its checklist."""
    return assembled(
        Read(to_prompt(record, place)) for path in paths for place, record in read_records(path, "WildBench file")
    )


def to_prompt(record: Any, place: str) -> Prompt:
    """The conversation up to the answer that is asked for, as one turn."""
    session = field(record, "session_id", place)
    messages = record.get("conversation_input")
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{place}: no messages 'conversation_input'; {shape(record)}")
    said = [_said(message, place) for message in messages]
    if said[-1][0] != "user":
        raise UserError(f"{place}: the last message of 'conversation_input' is not the user's")
    *before, (_, last) = said
    history = "".join(f"{_SPEAKERS[role]}: {text}\n\n" for role, text in before)
    turn = f"Our conversation so far:\n\n{history}User: {last}" if before else last
    category, checklist = field(record, "primary_tag", place), texts(record, "checklist", place)
    return checked(Prompt(id=session, turns=(turn,), category=category, checklist=checklist), place)


def _said(message: Any, place: str) -> tuple[str, str]:
    role = field(message, "role", place)
    if not isinstance(message, Mapping) or role not in _SPEAKERS:
        raise UserError(f"{place}: a message of 'conversation_input' is the user's or the assistant's, not '{role}'")
    return role, field(message, "content", place)
