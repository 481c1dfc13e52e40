"""Train, validation and held-out shares of a data set by content: adding rows moves no row between them."""

from __future__ import annotations

import hashlib

from dadpo_bench.recipe import Shares
from dadpo_bench.tasks.data_set import TaskData
from dadpo_bench.tasks.wording import words
from dadpo_bench.types import Prompt

TRAIN, VALIDATION, HELDOUT = SPLITS = ("train", "validation", "heldout")


def split_of(prompt: Prompt, shares: Shares) -> str:
    """The one split a prompt belongs to, by the seed and its wording alone.

    Prompts that differ in case, spacing or punctuation alone lie in the same one.
    """
    wording = " ".join(words(prompt) or "\n".join(prompt.turns).casefold().split())
    digest = hashlib.sha256(f"{shares.seed}\n{wording}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < shares.heldout:
        return HELDOUT
    return VALIDATION if place < shares.heldout + shares.validation else TRAIN


def only(data: TaskData, split: str, shares: Shares) -> TaskData:
    """The part of a data set that is this split's."""
    prompts = tuple(prompt for prompt in data.prompts if split_of(prompt, shares) == split)
    ids = {prompt.id for prompt in prompts}
    baseline = {i: replies for i, replies in data.baseline.items() if i in ids} if data.baseline else None
    return data._replace(prompts=prompts, baseline=baseline)
