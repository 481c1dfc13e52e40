"""IPO (Azar et al. 2023, arXiv 2310.12036): (h − 1/(2β))², h the difference of log-ratios to the reference.

Signals: the reference's log-probs. The loss is the paper's; the preferences are not people's: the teacher's
response is preferred to the dSFT student's own.
"""

from pydantic import Field
from torch import Tensor

from dadpo_bench.types import Pair
from trainers.preference import PreferenceConfig, PreferenceMethod


class IPOConfig(PreferenceConfig):
    """Settings of IPO."""

    beta: float = Field(0.1, gt=0, description="Strength of the anchor to the dSFT student, 1/nat.")


def ipo_loss(policy: Pair, reference: Pair, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sequence log-probs (B,) → losses and rewards of both responses, each (B,)."""
    chosen = policy.chosen - reference.chosen
    rejected = policy.rejected - reference.rejected
    return (chosen - rejected - 1 / (2 * beta)) ** 2, beta * chosen, beta * rejected


method = PreferenceMethod(
    IPOConfig, lambda config, scores: ipo_loss(scores.policy, scores.signals["reference"], config.beta), ("reference",)
)
