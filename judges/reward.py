"""A reward model on this machine: one number for a whole conversation. Untested on real reward models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field

from dadpo_bench.models.loading import check_one_label, find, load_reward_model
from dadpo_bench.models.precision import device
from dadpo_bench.types import JsonObject, JudgeContext, Rating, Response, Value
from judges.scoring_model import ScoringModel

VERSION = 1
"""Raise it when a change here moves ratings."""


class RewardConfig(Value):
    """Settings of the judge `reward`."""

    share: ClassVar = 8
    """Responses that a worker elsewhere is given at a time."""

    model: str = Field(
        min_length=1,
        description="Reward model: a directory or a Hugging Face id that transformers reads as a sequence classifier "
        "with one label, with a chat template.",
    )
    chat_template: str | None = Field(None, description="Jinja template, for tokenizers that come without one.")


class Reward:
    """What a sequence classifier with one label says of a conversation, in the reward model's own unit.

    The conversation with every reply is rendered by the chat template, no generation prompt behind it, and read
    once, as `tokenizer.apply_chat_template(conversation)` gives it. In bf16 ratings have three significant digits,
    so near ones may tie. Outcome reward models as of Skywork-Reward-V2: Liu et al. 2025 (arXiv 2507.01352).
    """

    name = "reward"
    share = RewardConfig.share

    def __init__(self, config: RewardConfig, _context: JudgeContext) -> None:
        self._scoring = ScoringModel(partial(_found, config.model), config.chat_template, load_reward_model)

    def identity(self) -> JsonObject:
        """What decides a rating. Raises `UserError` where the model cannot be found, or has not one label."""
        return {"judge": self.name, "version": VERSION, **self._scoring.identity()}

    def rate(self, responses: Sequence[Response]) -> Iterator[tuple[int, Rating]]:
        """Yield ratings one after another, each a function of its response alone.

        A rating is None where the conversation is longer than the model's context, or the number is not finite.
        Raises `UserError` where the model cannot be read.
        """
        for index, response in enumerate(responses):
            yield index, self._rating(response)

    @torch.inference_mode()
    def _rating(self, response: Response) -> Rating:
        scoring = self._scoring
        ids = scoring.tokenizer.conversation_ids(
            response.prompt.messages(tuple(reply.text for reply in response.replies))
        )
        if scoring.context is not None and len(ids) > scoring.context:
            return Rating(value=None, reason="too long")
        value = float(scoring.model(torch.tensor([ids], device=device())).logits[0, 0])
        return Rating(value=value) if math.isfinite(value) else Rating(value=None, reason="rating is not finite")


def _found(model: str) -> Path:
    directory = find(model)
    check_one_label(directory)
    return directory
