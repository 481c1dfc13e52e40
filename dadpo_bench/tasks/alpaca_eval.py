"""AlpacaEval (Li et al. 2023) and AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475): 805 instructions.

Both are the same instructions with another baseline's `output` beside each. `tatsu-lab/alpaca_eval` on the hub is a
loading script, which `datasets` ≥ 4 refuses: its JSON is read directly. Annotations of a leaderboard row (`output_1`)
are read too: they carry the instructions and the baseline's answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dadpo_bench.records import read_records
from dadpo_bench.registry import SourceFile, TaskEntry
from dadpo_bench.tasks.data_set import Read, TaskData, assembled, checked, field
from dadpo_bench.types import Prompt, content_key


def _entry(name: str, summary: str, file: str, baseline: str, length_controlled: bool) -> TaskEntry:
    return TaskEntry(
        name=name,
        summary=summary,
        target="dadpo_bench.tasks.alpaca_eval:read",
        source="https://github.com/tatsu-lab/alpaca_eval",
        domain="out",
        licence="CC BY-NC by its repository, CC BY 4.0 by its loading script on the hub",
        splits=("heldout",),
        prompts={"heldout": 805},
        baseline=baseline,
        judge_mode="pairwise",
        length_controlled=length_controlled,
        repository="hub:tatsu-lab/alpaca_eval",
        files={"heldout": (SourceFile(path=file),)},
    )


alpaca_eval = _entry(
    "alpaca_eval",
    "AlpacaEval: 805 instructions, against text_davinci_003",
    "alpaca_eval.json",
    "text_davinci_003",
    length_controlled=False,
)
alpaca_eval_2 = _entry(
    "alpaca_eval_2",
    "AlpacaEval 2: the same 805 instructions, against gpt4_1106_preview, length-controlled",
    "alpaca_eval_gpt4_baseline.json",
    "gpt4_1106_preview",
    length_controlled=True,
)


def read(paths: Sequence[Path], split: str) -> TaskData:
    """The instructions of one JSON file, and the baseline's answers."""
    (path,) = paths
    return assembled(_read(path))


def _read(path: Path) -> Iterator[Read]:
    for place, record in read_records(path, "AlpacaEval file"):
        yield to_prompt(record, place)


def to_prompt(record: Any, place: str) -> Read:
    """`instruction`, `dataset` (the category), and `output` of `generator` (in annotations `output_1`, `generator_1`).

    The id is made of the instruction: files list them in different orders.
    """
    instruction = field(record, "instruction", place)
    prompt = Prompt(
        id=content_key("alpaca_eval", instruction)[:12],
        turns=(instruction,),
        category=str(record.get("dataset") or ""),
    )
    suffix = "_1" if "output_1" in record else ""
    answered = f"output{suffix}" in record
    return Read(
        checked(prompt, place),
        (field(record, f"output{suffix}", place),) if answered else (),
        field(record, f"generator{suffix}", place) if answered else "",
    )
