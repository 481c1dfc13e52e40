"""DistiLLM-2 (Ko et al. 2025, arXiv 2503.07067): skew KL on the teacher's responses, skew reverse KL on the student's.

Signals: the teacher's logits, made while training. Differs from the paper, in our reading: α and the share of the
student's responses are constants, where the paper adapts α to each pair and raises the share as training goes on; and
the student's responses are drawn once, from the dSFT student, not anew every epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dadpo_bench.models import Stream
from dadpo_bench.types import Example, Job
from trainers.config import TrainConfig
from trainers.distillation import TokenObjective, shared_rows, teacher_of
from trainers.divergences import between
from trainers.loop import LoopMethod
from trainers.preference import pair_branching
from trainers.teachers import ResidentTeacher


class DistiLLM2Config(TrainConfig):
    """Settings of DistiLLM-2."""

    alpha: float = Field(0.1, gt=0, lt=1, description="Share of the first distribution in both skew mixtures.")
    student_share: float = Field(0.5, ge=0, le=1, description="Share of the student's responses in the loss.")


def contrastive_divergence(student: Tensor, teacher: Tensor, rejected: Tensor, alpha: float) -> Tensor:
    """(T, V) log-probs, (T,) whether a token is of the rejected response → (T,) nats.

    Of the chosen KL(teacher‖α·teacher + (1−α)·student), of the rejected KL(student‖α·student + (1−α)·teacher).
    """
    losses = torch.empty_like(student[:, 0])
    losses[~rejected] = between(student[~rejected], teacher[~rejected], "skew_forward_kl", alpha=alpha)
    losses[rejected] = between(student[rejected], teacher[rejected], "skew_reverse_kl", alpha=alpha)
    return losses


class DistiLLM2Objective(TokenObjective):
    """The contrastive loss of pairs: (1 − w)·SKL(y⁺) + w·SRKL(y⁻), each a mean over the response's tokens."""

    branching = staticmethod(pair_branching)

    def __init__(self, config: DistiLLM2Config, job: Job) -> None:
        self._config = config
        rows = shared_rows(job)
        super().__init__(ResidentTeacher(teacher_of(job), rows, temperature=1.0), rows)

    def weight(self, examples: Sequence[Example], targets: Sequence[int]) -> int:
        """The loss is a mean over pairs."""
        return len(examples)

    def token_losses(self, student: Tensor, teacher: Tensor, logits: Tensor, targets: Tensor, owners: Tensor) -> Tensor:
        """Continuations are chosen and rejected in turn."""
        return contrastive_divergence(student, teacher, owners % 2 == 1, self._config.alpha)

    def total(self, stream: Stream, losses: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """(R,) token losses → the summed loss of the pairs, and both divergences."""
        means = stream.sum_by_continuation(losses) / stream.tokens_by_continuation
        chosen, rejected = means[0::2].sum(), means[1::2].sum()
        share = self._config.student_share
        return (1 - share) * chosen + share * rejected, {
            "chosen_divergence": float(chosen.detach()),
            "rejected_divergence": float(rejected.detach()),
        }


method = LoopMethod(DistiLLM2Config, DistiLLM2Objective)
