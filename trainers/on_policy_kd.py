"""On-policy KD: the student answers, and the teacher's log-probs of what it said reward every token.

Agarwal et al. 2024 (GKD, arXiv 2306.13649) train on the student's own responses, Gu et al. 2024 (MiniLLM, arXiv
2306.08543) follow the policy gradient of KL(student‖teacher). Signals: the teacher's log-probs of the sampled tokens,
made while training. Differs from GKD: the reward of a sampled token in place of a sum over the vocabulary, and no
teacher's responses mixed in. Differs from MiniLLM: a token is not credited with the rewards behind it, and there is no
mixed sampling, clipping or language modelling term. Each rollout is learnt from once, by the weights that drew it, so
importance weights are 1 up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dadpo_bench.models import (
    Branching,
    Head,
    Stream,
    batches,
    chat_tokenizer,
    frozen,
    hidden_states,
    load_model,
    respond,
    streaming,
    token_log_probs,
)
from dadpo_bench.types import Example, Job, Sampling, content_key
from trainers.config import TrainConfig
from trainers.distillation import teacher_of
from trainers.loop import LoopMethod
from trainers.step import Policy, response_branching


class OnPolicyKDConfig(TrainConfig):
    """Settings of on-policy KD."""

    temperature: float = Field(
        1.0, gt=0, description="Of the rollouts; at 1 the gradient is that of KL(student‖teacher) token by token."
    )
    max_new_tokens: int = Field(64, ge=1, description="Limit on the tokens of a rollout.")


def policy_gradient_losses(policy: Tensor, teacher: Tensor) -> Tensor:
    """−A·π_θ/π_old, A = log π_te − log π_old, π_old = π_θ held constant: its gradient is −A·∇log π_θ.

    Args: (R,) log-probs of sampled tokens, nats. Returns: (R,), in value the tokens' log π_θ/π_te, whose mean estimates
    KL(student‖teacher).
    """
    held = policy.detach()
    return (held - teacher) * (policy - held).exp()


class OnPolicyKDObjective:
    """Rollouts of the policy, rewarded token by token by a resident teacher."""

    # What the pre-flight checks; `draw` takes its place before anything is learnt or measured.
    branching = staticmethod(response_branching)

    def __init__(self, config: OnPolicyKDConfig, job: Job) -> None:
        self._sampling = Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens)
        self._tokenizer = chat_tokenizer(str(job.start), job.chat_template)
        self._teacher, self._seed = load_model(teacher_of(job), frozen()), job.seed

    def draw(self, model: Any, examples: Sequence[Example], step: int) -> list[Branching]:
        """[prompt | the policy's own response]."""
        seed = int(content_key("rollouts", self._seed, step)[:15], 16)
        drawn = {
            r.prompt.key: self._tokenizer.branching(r.prompt, r.replies, sampled=True)
            for group in batches([e.prompt for e in examples], self._sampling.batch_size)
            for r in respond(model, self._tokenizer, group, self._sampling, seed)
        }
        return [drawn[e.prompt.key] for e in examples]

    def weight(self, examples: Sequence[Example], targets: Sequence[int]) -> int:
        """The loss is a mean over sampled tokens."""
        return sum(targets)

    def loss(self, policy: Policy, stream: Stream, examples: Sequence[Example]) -> tuple[Tensor, dict[str, Any]]:
        """Summed loss of the micro-batch's sampled tokens, nats."""
        with torch.no_grad(), streaming(self._teacher, stream.longest):
            states = hidden_states(self._teacher, stream)
            teacher = token_log_probs(Head(self._teacher), states, stream, frozen().compute)
        total = policy_gradient_losses(policy(stream), teacher).sum()
        return total, {"teacher_log_prob": float(teacher.sum())}


method = LoopMethod(OnPolicyKDConfig, OnPolicyKDObjective)
