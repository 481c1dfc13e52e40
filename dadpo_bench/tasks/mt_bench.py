"""MT-Bench (Zheng et al. 2023, arXiv 2306.05685) and Vicuna-Bench, as FastChat keeps them.

`question.jsonl` has `question_id`, `category`, `turns`. GPT-4's reference answers, which FastChat's judges are shown
for maths, reasoning and coding, lie in a file of their own; some questions carry a `reference` of another origin, which
those judges never see, and so it is not read.
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

REFERENCED = ("math", "reasoning", "coding")
"""Categories whose judges are shown a reference answer (FastChat's `NEED_REF_CATS`)."""

_FOLDER = "fastchat/llm_judge/data"
_REPOSITORY = "github:lm-sys/FastChat"
_LICENCE = "Apache-2.0 (the repository's)"
_TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
"""FastChat's `temperature_config`."""

mt_bench = TaskEntry(
    name="mt_bench",
    summary="MT-Bench: 80 two-turn questions of eight categories, rated from 1 to 10",
    target="dadpo_bench.tasks.mt_bench:read",
    source="arXiv 2306.05685; https://github.com/lm-sys/FastChat",
    domain="out",
    licence=_LICENCE,
    splits=("heldout",),
    prompts={"heldout": 80},
    turns=2,
    judge_mode="single-answer",
    temperatures=_TEMPERATURES,
    repository=_REPOSITORY,
    files={
        "heldout": (
            SourceFile(path=f"{_FOLDER}/mt_bench/question.jsonl"),
            SourceFile(
                path=f"{_FOLDER}/mt_bench/reference_answer/gpt-4.jsonl",
                aliases=("reference_answer/gpt-4.jsonl", "reference_answer_gpt-4.jsonl"),
            ),
        )
    },
)
vicuna_bench = TaskEntry(
    name="vicuna_bench",
    summary="Vicuna-Bench: MT-Bench's predecessor, 80 questions of one turn",
    target="dadpo_bench.tasks.mt_bench:read",
    source="https://github.com/lm-sys/FastChat",
    domain="out",
    licence=_LICENCE,
    splits=("heldout",),
    prompts={"heldout": 80},
    judge_mode="single-answer",
    # FastChat answers a category that its table lacks at 0.7.
    temperatures={
        **{c: _TEMPERATURES[c] for c in ("coding", "math", "roleplay", "writing")},
        **dict.fromkeys(("generic", "knowledge", "common-sense", "fermi", "counterfactual"), 0.7),
    },
    repository=_REPOSITORY,
    files={
        "heldout": (
            SourceFile(path=f"{_FOLDER}/vicuna_bench/question.jsonl"),
            SourceFile(
                path=f"{_FOLDER}/vicuna_bench/reference_answer/gpt-4.jsonl", aliases=("reference_answer/gpt-4.jsonl",)
            ),
        )
    },
)


def read(paths: Sequence[Path], split: str) -> TaskData:
    """The questions, those of `REFERENCED` categories with GPT-4's answers. Raises `UserError` where one lacks it."""
    questions, answers = paths
    references: dict[str, tuple[str, ...]] = {}
    for place, record in read_records(answers, "reference answers"):
        references[_id(record, place)] = _answer(record, place)
    return assembled(
        Read(to_prompt(record, place, references)) for place, record in read_records(questions, "questions")
    )


def to_prompt(record: Any, place: str, references: Mapping[str, tuple[str, ...]]) -> Prompt:
    """`question_id`, `category`, `turns`; the reference answer of its id where its category has one."""
    turns, id, category = texts(record, "turns", place), _id(record, place), field(record, "category", place)
    reference = references.get(id, ()) if category in REFERENCED else ()
    if category in REFERENCED and len(reference) != len(turns):
        raise UserError(f"{place}: question {id} has no reference answer to each turn")
    return checked(Prompt(id=id, turns=turns, category=category, reference=reference), place)


def _id(record: Any, place: str) -> str:
    id = record.get("question_id") if isinstance(record, Mapping) else None
    if not isinstance(id, str | int):
        raise UserError(f"{place}: no text or whole number 'question_id'; {shape(record)}")
    return str(id)


def _answer(record: Mapping[str, Any], place: str) -> tuple[str, ...]:
    choices = record.get("choices")
    if not isinstance(choices, list) or not choices:
        raise UserError(f"{place}: no 'choices'; {shape(record)}")
    return texts(choices[0], "turns", place)
