"""One optimiser step: from a batch of lessons to a gradient, whatever the method and however many processes.

A batch is cut into micro-batches of at most `micro_batch_tokens` unique tokens. The loss is a mean over the whole
batch, so how it is cut (or shared among processes) changes nothing but memory.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from dadpo_bench.errors import WorkError
from dadpo_bench.models import (
    Branching,
    ChatTokenizer,
    Head,
    Precision,
    Stream,
    batches_by_tokens,
    hidden_states,
    longest_sequence,
    streaming,
    token_log_probs,
)
from dadpo_bench.models.flops import training_flops
from dadpo_bench.models.memory import resident_bytes
from dadpo_bench.types import Example
from trainers.config import TrainConfig

Read = Callable[[Head, Tensor, Stream], Tensor]


class Policy(Protocol):
    """The model being trained, as objectives see it."""

    def __call__(self, stream: Stream, read: Read | None = None) -> Tensor:
        """(R,) log-probs of the stream's targets, or what `read` makes of their hidden states."""
        ...


class PolicyModel(nn.Module):
    """Body and head in one module's forward, so that data-parallel wrappers see every parameter used."""

    def __init__(self, model: Any, precision: Precision) -> None:
        super().__init__()
        self.model = model
        self.precision = precision
        # What accelerate's FSDP shards apart: without it a step would gather all weights at once.
        self._no_split_modules = getattr(model, "_no_split_modules", None)

    def forward(self, stream: Stream, read: Read | None = None) -> Tensor:
        """As of `Policy`."""
        with self.precision.autocast():
            hidden = hidden_states(self.model, stream)
            head = Head(self.model)
            if read is not None:
                return read(head, hidden, stream)
            return token_log_probs(head, hidden, stream, self.precision.compute)


@contextmanager
def recomputing(model: Any) -> Iterator[None]:
    """Gradient checkpointing: within, of a layer only its input is kept, the rest is computed again backward.

    Only a layer's own flag is set: its children's dropout would make the policy another model than its reference.
    Elsewhere it is off, as a layer that recomputes takes no cache, and the policy could not answer.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not getattr(layers[0] if layers else None, "gradient_checkpointing", False):
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


class Objective(Protocol):
    """What a method optimises."""

    def branching(self, tokenizer: ChatTokenizer, example: Example, *, sampled: bool) -> Branching:
        """Token ids of one example."""
        ...

    def weight(self, examples: Sequence[Example], targets: Sequence[int]) -> int:
        """What the summed loss of a step is divided by, given each example's response tokens."""
        ...

    def loss(self, policy: Policy, stream: Stream, examples: Sequence[Example]) -> tuple[Tensor, dict[str, float]]:
        """Summed loss of a micro-batch, and summed metrics."""
        ...


@runtime_checkable
class Drawing(Protocol):
    """What an objective also has that learns from the policy's own words, drawn right before each pass."""

    def draw(self, model: Any, examples: Sequence[Example], step: int) -> list[Branching]:
        """In place of `branching`, one for each example: decided by weights, job and step; step 0 is validation."""
        ...


def response_branching(tokenizer: ChatTokenizer, example: Example, *, sampled: bool) -> Branching:
    """[prompt | the teacher's response]."""
    return tokenizer.branching(example.prompt, [example.chosen], sampled=sampled)


class Lessons(NamedTuple):
    """Examples with their token ids."""

    examples: list[Example]
    branchings: list[Branching]


@dataclass(frozen=True)
class Step:
    """One optimiser step, or one measurement without."""

    accelerator: Accelerator
    policy: Policy
    optimiser: Any
    objective: Objective
    config: TrainConfig
    peak: float
    """FLOPs a second that this device reaches at most."""

    def take(self, lessons: Lessons, batch: Sequence[int], rate: float, number: int) -> dict[str, float]:
        """Learn from a batch; metrics are means of the objective's own, over the whole batch and all processes."""
        began = time.perf_counter()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        model = self.accelerator.unwrap_model(self.policy).model
        with (
            self._reading(lessons, batch, number) as read,
            recomputing(model) if self.config.gradient_checkpointing else nullcontext(),
        ):
            totals, weight = self._pass(read, batch, learn=True)
        norm = float(self.accelerator.clip_grad_norm_(self.policy.parameters(), self.config.max_grad_norm))  # type: ignore[attr-defined]
        if not math.isfinite(norm):
            raise WorkError("the gradient is not finite: lower the learning rate, or look at the examples' log-probs")
        self.optimiser.step()
        self.optimiser.zero_grad()
        tokens, flops = totals.pop("tokens"), totals.pop("flops")
        seconds = time.perf_counter() - began
        return {
            **{name: value / weight for name, value in totals.items()},
            "grad_norm": norm,
            "learning_rate": rate,
            "tokens": tokens,
            "tokens_per_second": tokens / seconds,
            "model_flop_utilisation": flops / seconds / (self.peak * self.accelerator.num_processes),
            "resident_bytes": resident_bytes(),
        }

    @torch.no_grad()
    def measure(self, lessons: Lessons) -> dict[str, float]:
        """The objective's metrics on examples that are not learnt from."""
        batch = range(len(lessons.examples))
        with self._reading(lessons, batch, 0) as read:
            totals, weight = self._pass(read, batch, learn=False)
        return {f"validation_{k}": v / weight for k, v in totals.items() if k not in ("tokens", "flops")}

    @contextmanager
    def _reading(self, lessons: Lessons, batch: Sequence[int], number: int) -> Iterator[Lessons]:
        """Lessons drawn where the objective does so, else as they are; within, the model reads streams.

        It answers by its ordinary attention, so it reads streams pass by pass, not all training long.
        """
        policy = self.accelerator.unwrap_model(self.policy)
        if isinstance(self.objective, Drawing):
            shares = self._shares(batch)
            own = [lessons.examples[i] for i in shares[self.accelerator.process_index]]
            with policy.precision.autocast():
                drawn = gather_object(self.objective.draw(policy.model, own, number))
            everybodys = zip(itertools.chain(*shares), drawn, strict=True)
            branchings = dict(enumerate(lessons.branchings)) | dict(everybodys)
            lessons = Lessons(lessons.examples, list(branchings.values()))
        with streaming(policy.model, longest_sequence(lessons.branchings[i] for i in batch)):
            yield lessons

    def _pass(self, lessons: Lessons, batch: Sequence[int], *, learn: bool) -> tuple[dict[str, float], int]:
        """Summed metrics and what a mean of them divides by."""
        targets = [sum(map(len, lessons.branchings[i].continuations)) for i in batch]
        weight = self.objective.weight([lessons.examples[i] for i in batch], targets)
        accelerator, totals = self.accelerator, Counter[str]()
        micro = self._micro_batches(lessons, batch)
        for number, (numbers, counts) in enumerate(micro, 1):
            examples = [lessons.examples[i] for i in numbers]
            stream = Stream.pack([lessons.branchings[i] for i in numbers], accelerator.device)
            with nullcontext() if number == len(micro) else accelerator.no_sync(self.policy):
                loss, metrics = self.objective.loss(self.policy, stream, examples)
                if learn:
                    # Data-parallel wrappers average gradients over processes; the mean here is over the whole batch.
                    accelerator.backward(loss * (counts * accelerator.num_processes / weight))
            flops = training_flops(accelerator.unwrap_model(self.policy).model, stream)
            told = metrics | {"loss": float(loss.detach()), "tokens": stream.tokens, "flops": flops}
            totals.update({name: counts * value for name, value in told.items()})
        names = sorted(totals)
        values = torch.tensor([totals[name] for name in names], dtype=torch.float64, device=accelerator.device)
        return dict(zip(names, accelerator.reduce(values, "sum").tolist(), strict=True)), weight

    def _micro_batches(self, lessons: Lessons, batch: Sequence[int]) -> list[tuple[list[int], int]]:
        """This process's share in pieces, each with 1, or 0 where it only keeps step with a process that has more."""
        cut = []
        for own in self._shares(batch):
            pieces = batches_by_tokens([lessons.branchings[i] for i in own], self.config.micro_batch_tokens)
            cut.append([[own[n] for n in piece] for piece in pieces])
        micro = [(piece, 1) for piece in cut[self.accelerator.process_index]]
        return micro + [([batch[0]], 0)] * (max(map(len, cut)) - len(micro))

    def _shares(self, batch: Sequence[int]) -> list[Sequence[int]]:
        """The batch, shared out among the processes."""
        processes = self.accelerator.num_processes
        return [batch[process::processes] for process in range(processes)]
