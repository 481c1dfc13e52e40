"""daDPO (Zhang et al. 2025, arXiv 2506.15717): DPO anchored to the reference and to the teacher."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from trainers.preference import PreferenceConfig, PreferenceMethod, Scores


class DaDPOConfig(PreferenceConfig):
    """Settings of daDPO. β_teacher = 0 is DPO with β = β_reference."""

    beta_reference: float = Field(
        0.1, ge=0, description="Strength of the KL anchor to the dSFT student (β₁ of the paper), 1/nat."
    )
    beta_teacher: float = Field(
        0.1, ge=0, description="Strength of the KL anchor to the teacher (β₂ of the paper), 1/nat."
    )


def dadpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    teacher_chosen: Tensor,
    teacher_rejected: Tensor,
    beta_reference: float,
    beta_teacher: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """−log σ(r(y⁺) − r(y⁻)), r(y) = β_ref·log[π_θ(y)/π_ref(y)] + β_te·log[π_θ(y)/π_te(y)].

    Args: sequence log-probs, each (B,), nats, summed over the response's tokens; β in 1/nat.
    Returns: losses, rewards of the chosen, rewards of the rejected responses, each (B,).
    """

    def reward(policy: Tensor, reference: Tensor, teacher: Tensor) -> Tensor:
        return beta_reference * (policy - reference) + beta_teacher * (policy - teacher)

    chosen = reward(policy_chosen, reference_chosen, teacher_chosen)
    rejected = reward(policy_rejected, reference_rejected, teacher_rejected)
    return -logsigmoid(chosen - rejected), chosen, rejected


def _loss(config: DaDPOConfig, scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
    reference, teacher = scores.signals["reference"], scores.signals["teacher"]
    return dadpo_loss(*scores.policy, *reference, *teacher, config.beta_reference, config.beta_teacher)


method = PreferenceMethod(DaDPOConfig, _loss, signals=("reference", "teacher"))
