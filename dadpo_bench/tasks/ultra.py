"""In-domain tasks: UltraChat's first user messages (Ding et al. 2023), UltraFeedback's prompts (Cui et al. 2023).

Both as they were filtered for Zephyr (Tunstall et al. 2023).

Records have `prompt`, `prompt_id`, `messages`. Only `prompt` is read: later user messages answer other replies.
Training and validation prompts are the authors' training split, cut by content; held-out ones their test split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dadpo_bench.recipe import Shares
from dadpo_bench.records import read_records
from dadpo_bench.registry import SourceFile, TaskEntry
from dadpo_bench.tasks.data_set import Read, TaskData, assembled, checked, field
from dadpo_bench.tasks.splits import TRAIN, VALIDATION, only
from dadpo_bench.types import Prompt

SHARES = Shares(train=0.98, validation=0.02, heldout=0)
"""Of the authors' training split."""


def _entry(name: str, summary: str, suffix: str, test: int) -> TaskEntry:
    train = (SourceFile(path=f"data/train_{suffix}-*.parquet", aliases=(f"train_{suffix}*",)),)
    return TaskEntry(
        name=name,
        summary=summary,
        target="dadpo_bench.tasks.ultra:read",
        source=f"https://huggingface.co/datasets/HuggingFaceH4/{name}",
        domain="in",
        licence="MIT",
        splits=("train", "validation", "heldout"),
        prompts={"heldout": test},
        repository=f"hub:HuggingFaceH4/{name}",
        files={
            "train": train,
            "validation": train,
            "heldout": (SourceFile(path=f"data/test_{suffix}-*.parquet", aliases=(f"test_{suffix}*",)),),
        },
    )


ultrachat_200k = _entry(
    "ultrachat_200k", "UltraChat 200k: the first user messages of dialogues, as Zephyr's dSFT had them", "sft", 23_110
)
ultrafeedback_binarized = _entry(
    "ultrafeedback_binarized", "UltraFeedback's prompts, as Zephyr's dDPO had them (binarised)", "prefs", 2_000
)


def read(paths: Sequence[Path], split: str) -> TaskData:
    """The prompts of one split."""
    data = assembled(
        Read(to_prompt(record, place)) for path in paths for place, record in read_records(path, "prompts file")
    )
    return only(data, split, SHARES) if split in (TRAIN, VALIDATION) else data


def to_prompt(record: Any, place: str) -> Prompt:
    """`prompt` and `prompt_id`."""
    prompt = Prompt(id=field(record, "prompt_id", place), turns=(field(record, "prompt", place),))
    return checked(prompt, place)
