"""Token-level KD: a divergence between student and teacher at every token of the teacher's responses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

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
from trainers.loop import LoopMethod, Policy, TrainConfig, response_branching

Kind = Literal["forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl"]


class KDConfig(TrainConfig):
    """Settings of token-level KD."""

    divergence: Kind = Field("forward_kl", description="Divergence between teacher and student, nats a token.")
    temperature: float = Field(1.0, gt=0, description="Softens both distributions; no T² factor is applied.")
    beta: float = Field(0.5, gt=0, lt=1, description="Teacher's share in the mixture of `jsd`.")
    alpha: float = Field(0.1, gt=0, lt=1, description="Share of the first distribution in the `skew` mixtures.")
    nll_weight: float = Field(0.0, ge=0, le=1, description="Share of the NLL in the loss, the divergence has the rest.")


def divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    kind: Kind,
    *,
    temperature: float = 1.0,
    beta: float = 0.5,
    alpha: float = 0.1,
) -> Tensor:
    """(T, V) student and teacher logits → (T,) divergence in nats, without a T² factor.

    `forward_kl` KL(teacher‖student); `reverse_kl` KL(student‖teacher); `jsd` β·KL(teacher‖M) +
    (1−β)·KL(student‖M), M = β·teacher + (1−β)·student (Agarwal et al. 2024); `skew_forward_kl`
    KL(teacher‖α·teacher + (1−α)·student), `skew_reverse_kl` with the two exchanged (Ko et al. 2024).
    """
    student = (student_logits / temperature).log_softmax(-1)
    teacher = (teacher_logits / temperature).log_softmax(-1)

    def kl(p: Tensor, q: Tensor) -> Tensor:
        return (p.exp() * (p - q)).sum(-1)

    def mixed(p: Tensor, q: Tensor, share: float) -> Tensor:
        return torch.logaddexp(p + math.log(share), q + math.log1p(-share))

    match kind:
        case "forward_kl":
            return kl(teacher, student)
        case "reverse_kl":
            return kl(student, teacher)
        case "jsd":
            middle = mixed(teacher, student, beta)
            return beta * kl(teacher, middle) + (1 - beta) * kl(student, middle)
        case "skew_forward_kl":
            return kl(teacher, mixed(teacher, student, alpha))
        case "skew_reverse_kl":
            return kl(student, mixed(student, teacher, alpha))


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
