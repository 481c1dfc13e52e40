"""Token-level KD: a divergence between student and teacher at every token of the teacher's responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.models import (
    Head,
    Stream,
    by_chunk,
    frozen,
    hidden_states,
    load_model,
    streaming,
    tokenizer_key,
)
from dadpo_bench.types import Example, Job
from trainers.divergences import Kind, divergence
from trainers.loop import LoopMethod, Policy, TrainConfig, response_branching


class KDConfig(TrainConfig):
    """Settings of token-level KD."""

    divergence: Kind = Field("forward_kl", description="Divergence between teacher and student, nats a token.")
    temperature: float = Field(1.0, gt=0, description="Softens both distributions; no T² factor is applied.")
    beta: float = Field(0.5, gt=0, lt=1, description="Teacher's share in the mixture of `jsd`.")
    alpha: float = Field(0.1, gt=0, lt=1, description="Share of the first distribution in the `skew` mixtures.")
    nll_weight: float = Field(0.0, ge=0, le=1, description="Share of the NLL in the loss, the divergence has the rest.")


class KDObjective:
    """The divergence, with the teacher resident and its logits made chunk by chunk beside the student's."""

    branching = staticmethod(response_branching)

    def __init__(self, config: KDConfig, job: Job) -> None:
        if job.teacher is None:
            raise WorkError("kd needs the teacher's weights")
        if tokenizer_key(job.teacher) != tokenizer_key(job.start):
            raise UserError(
                "kd needs student and teacher with the same tokenizer; these differ. Use dadpo, which does not."
            )
        self._config = config
        self._teacher = load_model(job.teacher, frozen())

    def weight(self, examples: Sequence[Example], targets: Sequence[int]) -> int:
        """The loss is a mean over response tokens."""
        return sum(targets)

    def loss(self, policy: Policy, stream: Stream, examples: Sequence[Example]) -> tuple[Tensor, dict[str, Any]]:
        """Summed loss of the micro-batch's response tokens, nats."""
        with torch.no_grad(), streaming(self._teacher, stream.longest):
            taught = hidden_states(self._teacher, stream)
        teacher, config = Head(self._teacher), self._config

        def read(head: Head, hidden: Tensor, stream: Stream) -> Tensor:
            # Padded vocabularies differ within a family; beyond the shared rows there are no tokens.
            shared = min(head.weight.shape[0], teacher.weight.shape[0])

            def of_chunk(states: Tensor, teacher_states: Tensor, targets: Tensor) -> Tensor:
                logits = head.logits(states)[:, :shared]
                with torch.no_grad():
                    goal = teacher.logits(teacher_states)[:, :shared]
                loss = (1 - config.nll_weight) * divergence(
                    logits,
                    goal,
                    config.divergence,
                    temperature=config.temperature,
                    beta=config.beta,
                    alpha=config.alpha,
                )
                if config.nll_weight:
                    loss = loss + config.nll_weight * torch.nn.functional.cross_entropy(
                        logits, targets, reduction="none"
                    )
                return loss

            return by_chunk(of_chunk, max(1, head.rows // 4), hidden, taught, stream.targets)

        total = policy(stream, read).sum()
        return total, {"divergence": float(total.detach())}


method = LoopMethod(KDConfig, KDObjective)
