"""DPKD (Li et al. 2024, arXiv 2406.19774): DPO anchored to the teacher alone, log-ratios averaged over tokens.

Signals: the teacher's log-probs. daDPO with β_reference = 0, but for the average. The loss is our reading of the
paper's, with nothing beside it; the student's responses are drawn once, from the dSFT student, where training starts.
The default β is ours: at 50 tokens a response it is as strong as DPO's 0.1 a sequence.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from trainers.dpo import dpo_loss
from trainers.preference import PreferenceConfig, PreferenceMethod, Scores


class DPKDConfig(PreferenceConfig):
    """Settings of DPKD."""

    beta: float = Field(5.0, gt=0, description="Strength of the KL anchor to the teacher, tokens/nat.")


def dpkd_loss(scores: Scores, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """−log σ(r(y⁺) − r(y⁻)), r(y) = β·log[π_θ(y)/π_te(y)]/|y|, |y| in the student's tokens.

    Returns: losses, rewards of the chosen, rewards of the rejected responses, each (B,).
    """
    (policy, teacher), tokens = (scores.policy, scores.signals["teacher"]), scores.tokens
    return dpo_loss(
        policy.chosen / tokens.chosen,
        policy.rejected / tokens.rejected,
        teacher.chosen / tokens.chosen,
        teacher.rejected / tokens.rejected,
        beta,
    )


method = PreferenceMethod(DPKDConfig, lambda config, scores: dpkd_loss(scores, config.beta), signals=("teacher",))
