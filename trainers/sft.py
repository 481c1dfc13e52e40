"""SFT on the teacher's responses: token NLL, the mean over the tokens of the whole optimiser step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dadpo_bench.models import Stream
from dadpo_bench.types import Example
from trainers.config import TrainConfig
from trainers.loop import LoopMethod
from trainers.step import Policy, response_branching


class SFTConfig(TrainConfig):
    """Settings of SFT."""


class SFTObjective:
    """Negative log-likelihood of the teacher's responses."""

    branching = staticmethod(response_branching)

    def weight(self, examples: Sequence[Example], targets: Sequence[int]) -> int:
        """The loss is a mean over response tokens."""
        return sum(targets)

    def loss(self, policy: Policy, stream: Stream, examples: Sequence[Example]) -> tuple[Tensor, dict[str, Any]]:
        """Summed NLL of the micro-batch, nats."""
        total = -policy(stream).sum()
        return total, {"nll": float(total.detach())}


method = LoopMethod(SFTConfig, lambda config, job: SFTObjective())
