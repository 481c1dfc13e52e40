"""Kinds of work that a stage takes, each with the sizes that decide it: how many sequences, of how many tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from dadpo_bench.stages import Stage

Role = Literal["teacher", "student", "parent"]
"""`parent`: what the student is pruned from."""


@dataclass(frozen=True, kw_only=True)
class Work(ABC):
    """One kind of work in one stage, over all seeds and epochs."""

    work: ClassVar[str]
    stage: Stage
    who: str
    """Contestant, judge, or the model itself."""
    items: int
    unit: str
    at_most: bool = False
    """Whether there may be fewer items: what decides it is known on the way alone."""
    examples: int
    """Sequences that are computed: prompts with their replies."""
    prompt: float
    """Tokens, as a mean."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Tokens that are learnt from or scored; of sampling, the new ones."""


@dataclass(frozen=True, kw_only=True)
class Ask(Work):
    """Somebody with a model of their own answers, or reads replies: what that takes is not planned."""

    work = "ask"
    reply: float
    """Tokens, as a mean."""

    @property
    def tokens(self) -> int:
        """Those that are sent, or come back."""
        return int(self.examples * (self.reply + self.prompt))


@dataclass(frozen=True, kw_only=True)
class Computation(Work):
    """Work of one of the recipe's models, on the machine that is planned for."""

    model: Role

    @property
    def passed(self) -> float:
        """Tokens that go through the layers."""
        return float(self.tokens)

    @property
    @abstractmethod
    def targets(self) -> int:
        """Tokens that the head reads."""

    @property
    @abstractmethod
    def visible_keys(self) -> int:
        """Keys that all queries see."""

    @property
    def passes(self) -> int:
        """How often as much is computed as in a forward pass."""
        return 1


@dataclass(frozen=True, kw_only=True)
class Prune(Computation):
    """Importance from gradients on `examples` prompts; from the weights alone where there are none."""

    work = "prune"
    longest: float
    """Tokens of the longest prompt."""

    @property
    def tokens(self) -> int:
        """All of the prompts."""
        return int(self.examples * self.prompt)

    @property
    def targets(self) -> int:
        """Every token is predicted."""
        return self.tokens

    @property
    def visible_keys(self) -> int:
        """Each query sees itself and what is before it."""
        return int(self.examples * self.prompt**2 / 2)

    @property
    def passes(self) -> int:
        """Forward, and backward to inputs and weights."""
        return 3


@dataclass(frozen=True, kw_only=True)
class Sample(Computation):
    """Replies are drawn token by token, a batch of prompts at once."""

    work = "sample"
    longest: float
    """Tokens of the longest prompt."""
    reply: float
    """Tokens, as a mean."""
    limit: int
    """Tokens of the longest reply."""
    batch_size: int
    """Prompts decoded together at most."""
    batches: int
    """That are decoded one after another: one that is not full takes as long."""

    @property
    def tokens(self) -> int:
        """The new ones."""
        return int(self.examples * self.reply)

    @property
    def passed(self) -> float:
        """The prompts are read too."""
        return self.tokens + self.examples * self.prompt

    @property
    def targets(self) -> int:
        """A token is drawn at each new position alone."""
        return self.tokens

    @property
    def visible_keys(self) -> int:
        """Each query sees itself and what is before it."""
        return int(self.examples * (self.prompt + self.reply) ** 2 / 2)


@dataclass(frozen=True, kw_only=True)
class Reading(Computation):
    """Replies that are there are read behind their prompts, a prompt once for all of its replies."""

    replies: int
    """Continuations of each prompt."""
    reply: float
    """Tokens, as a mean."""
    teacher: bool
    """Whether the frozen teacher is in memory beside, and reads the same tokens."""

    @property
    def tokens(self) -> int:
        """Prompts and replies."""
        return int(self.examples * (self.reply + self.prompt + self._further))

    @property
    def targets(self) -> int:
        """The replies' tokens."""
        return int(self.examples * self.replies * self.reply)

    @property
    def visible_keys(self) -> int:
        """Each query sees its prompt, its reply up to itself, and no other reply."""
        whole = self.prompt + self.reply
        return int(self.examples * (whole**2 + self._further * (whole + self.prompt)) / 2)

    @property
    def target_share(self) -> float:
        """Of all tokens."""
        return self.replies * self.reply / (self.prompt + self.replies * self.reply)

    @property
    def _further(self) -> float:
        return (self.replies - 1) * self.reply


@dataclass(frozen=True, kw_only=True)
class Score(Reading):
    """Log-probs of replies, without gradients."""

    work = "score"
    masters: bool
    """Whether the weights are the fp32 masters, though nothing is trained."""


@dataclass(frozen=True, kw_only=True)
class Train(Reading):
    """Optimiser steps on replies."""

    work = "train"
    longest: float
    """Tokens of the longest prompt."""
    limit: int
    """Tokens of the longest reply."""
    cacheable: bool
    """Whether its teacher's logits can come from the disk."""
    recompute: bool
    """Whether layers keep their inputs alone for the backward pass."""
    rank: int
    """Of adapters that are trained in the weights' place; 0 for none."""
    rollouts: bool
    """Whether the replies are its own, drawn before each step."""
    batch_size: int = 1
    micro_batch_tokens: int = 0
    """With `batch_size`: a method without these settings is taken to pass one example at a time."""
    max_tokens: int = 0
    """Longer examples are left out; 0 where none are."""

    @property
    def passes(self) -> int:
        """Frozen weights have no gradient of their own; what is recomputed is one more pass."""
        return (2 if self.rank else 3) + self.recompute

    @property
    def shardable(self) -> bool:
        """Whether masters, gradients and moments can be shared out: the trainer refuses to shard the others."""
        return not (self.rank or self.rollouts)

    @property
    def copied_share(self) -> float:
        """Of tokens whose keys are copied: prompts, and continuations behind the first."""
        return 0.0 if self.replies < 2 else (self.prompt + self.reply) / (self.prompt + 2 * self.reply)

    @property
    def micro_batch(self) -> float:
        """Tokens of the largest micro-batch; an example longer than its limit is one of its own."""
        longest = self.longest + self.replies * self.limit
        if self.max_tokens:
            longest = min(longest, self.max_tokens)
        return max(longest, min(self.micro_batch_tokens, self.batch_size * longest))


@dataclass(frozen=True, kw_only=True)
class Rollouts(Sample):
    """Replies of the policy itself, drawn between the optimiser steps of a training."""

    training: Train
    """Its masters and moments, and its teacher, are in memory beside."""


Load = Ask | Prune | Sample | Score | Train | Rollouts
