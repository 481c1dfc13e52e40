"""DPO (Rafailov et al. 2023, arXiv 2305.18290) on distilled pairs: the teacher's response is preferred."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from trainers.preference import PreferenceConfig, PreferenceMethod, Scores


class DPOConfig(PreferenceConfig):
    """Settings of DPO."""

    beta: float = Field(0.1, gt=0, description="Strength of the KL anchor to the dSFT student, 1/nat.")


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """−log σ(r(y⁺) − r(y⁻)), r(y) = β·log[π_θ(y)/π_ref(y)].

    Args: sequence log-probs, each (B,), nats, summed over the response's tokens; β in 1/nat.
    Returns: losses, rewards of the chosen, rewards of the rejected responses, each (B,).
    """
    chosen = beta * (policy_chosen - reference_chosen)
    rejected = beta * (policy_rejected - reference_rejected)
    return -logsigmoid(chosen - rejected), chosen, rejected


def _loss(config: DPOConfig, scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
    return dpo_loss(*scores.policy, *scores.signals["reference"], config.beta)


method = PreferenceMethod(DPOConfig, _loss, signals=("reference",))
