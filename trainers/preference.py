"""What preference methods share: pairs in a stream, signals looked up by example, rewards reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dadpo_bench.errors import WorkError
from dadpo_bench.models import Branching, ChatTokenizer, Stream
from dadpo_bench.types import Example, Job, Pair
from trainers.config import TrainConfig
from trainers.loop import LoopMethod
from trainers.step import Policy


class Scores(NamedTuple):
    """What a loss is given of a micro-batch; every pair holds two tensors (B,)."""

    policy: Pair
    """Sequence log-probs of the model being trained, nats, summed over the response's tokens."""
    signals: Mapping[str, Pair]
    """The same of frozen models, by the signal's name."""
    tokens: Pair
    """How many tokens the student's tokenizer makes of each response."""


Loss = Callable[[Any, Scores], tuple[Tensor, Tensor, Tensor]]
"""(config, scores) → losses, rewards of the chosen, rewards of the rejected responses, each (B,)."""


class PreferenceConfig(TrainConfig):
    """Settings that all preference methods share."""


def pair_branching(tokenizer: ChatTokenizer, example: Example, *, sampled: bool) -> Branching:
    """[prompt | chosen | rejected]."""
    if example.rejected is None:
        raise WorkError(f"prompt {example.prompt.id}: this method needs a rejected response")
    return tokenizer.branching(example.prompt, [example.chosen, example.rejected], sampled=sampled)


class PreferenceObjective:
    """A pure loss over sequence log-probs, fed from the policy and the stored signals."""

    def __init__(self, config: PreferenceConfig, loss: Loss, signals: Sequence[str]) -> None:
        self._config, self._loss, self._signals = config, loss, signals

    def branching(self, tokenizer: ChatTokenizer, example: Example, *, sampled: bool) -> Branching:
        """[prompt | chosen | rejected], where every signal is there; a pair that is left out as too long needs none."""
        branching = pair_branching(tokenizer, example, sampled=sampled)
        missing = set(self._signals) - set(example.signals)
        if missing and branching.tokens <= self._config.max_tokens:
            raise WorkError(f"prompt {example.prompt.id}: no stored signal of {', '.join(sorted(missing))}")
        return branching

    def weight(self, examples: Sequence[Example], targets: Sequence[int]) -> int:
        """The loss is a mean over pairs."""
        return len(examples)

    def loss(self, policy: Policy, stream: Stream, examples: Sequence[Example]) -> tuple[Tensor, dict[str, Any]]:
        """Summed loss of the micro-batch's pairs."""
        sums, tokens = stream.sum_by_continuation(policy(stream)), stream.tokens_by_continuation
        own = Pair(sums[0::2], sums[1::2])
        stored = {name: _tensors([e.signals[name] for e in examples], sums) for name in self._signals}
        scores = Scores(own, stored, Pair(tokens[0::2], tokens[1::2]))
        losses, chosen, rejected = self._loss(self._config, scores)
        return losses.sum(), {
            "chosen_log_prob": float(own.chosen.detach().sum()),
            "rejected_log_prob": float(own.rejected.detach().sum()),
            "chosen_reward": float(chosen.detach().sum()),
            "rejected_reward": float(rejected.detach().sum()),
            "margin": float((chosen - rejected).detach().sum()),
            "accuracy": float((chosen > rejected).sum()),
        }


def _tensors(pairs: Sequence[Pair], like: Tensor) -> Pair:
    return Pair(*(torch.tensor(side, dtype=like.dtype, device=like.device) for side in zip(*pairs, strict=True)))


class PreferenceMethod(LoopMethod):
    """A preference method is its config, its pure loss and the names of the signals it reads."""

    def __init__(self, config: type[PreferenceConfig], loss: Loss, signals: Sequence[str]) -> None:
        def objective(settings: Any, job: Job) -> PreferenceObjective:
            return PreferenceObjective(settings, loss, signals)

        super().__init__(config, objective)
