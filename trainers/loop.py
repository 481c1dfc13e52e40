"""The one training loop. A method gives a config and an objective; the loop does everything else.

Examples → branchings → micro-batches of at most `micro_batch_tokens` unique tokens → one optimiser step a
`batch_size` examples. The loss of a step is a mean over the whole step, so how it is cut into
micro-batches (or shared among processes) changes nothing but memory.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dadpo_bench.errors import WorkError
from dadpo_bench.models import (
    Branching,
    ChatTokenizer,
    Head,
    Precision,
    Stream,
    batches_by_tokens,
    chat_tokenizer,
    device,
    hidden_states,
    load_model,
    longest_sequence,
    quiet_transformers,
    streaming,
    token_log_probs,
    training,
)
from dadpo_bench.types import Checkpoint, Example, Job
from trainers.preflight import lines, preflight

Read = Callable[[Head, Tensor, Stream], Tensor]


class TrainConfig(BaseModel):
    """Settings that all methods share."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = Field(1e-5, gt=0, description="Peak learning rate of AdamW.")
    epochs: int = Field(1, ge=1, description="Passes over the examples.")
    batch_size: int = Field(8, ge=1, description="Examples (or pairs) of one optimiser step.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this global norm.")
    micro_batch_tokens: int = Field(
        1536,
        ge=1,
        description="Unique tokens of one forward and backward pass: bounds memory, not the result.",
    )
    max_tokens: int = Field(
        2048, ge=2, description="Longer examples (prompt with all its responses) are dropped and counted."
    )


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
        self._precision = precision

    def forward(self, stream: Stream, read: Read | None = None) -> Tensor:
        """As of `Policy`."""
        with self._precision.autocast():
            hidden = hidden_states(self.model, stream)
            head = Head(self.model)
            if read is not None:
                return read(head, hidden, stream)
            return token_log_probs(head, hidden, stream, self._precision.compute)


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


def response_branching(tokenizer: ChatTokenizer, example: Example, *, sampled: bool) -> Branching:
    """[prompt | the teacher's response]."""
    return tokenizer.branching(example.prompt, [example.chosen], sampled=sampled)


class LoopMethod:
    """A method trained by the loop: `train(job)` of the `Method` protocol."""

    def __init__(self, config: type[TrainConfig], objective: Callable[[Any, Job], Objective]) -> None:
        self._config, self._objective = config, objective

    def train(self, job: Job) -> Checkpoint:
        """Train from `job.start` and write an ordinary Hugging Face directory to `job.output`."""
        config = self._config.model_validate(dict(job.settings))
        torch.manual_seed(job.seed)
        tokenizer = chat_tokenizer(str(job.start), job.chat_template)
        objective = self._objective(config, job)
        examples, branchings, dropped = _encode(objective, tokenizer, job, config)
        # fp32 masters whatever the machine computes in.
        precision = training()
        model = load_model(job.start, precision)
        found = preflight(model, tokenizer, examples, branchings, precision)
        for line in lines(found):
            job.say(line)
        accelerator = Accelerator(cpu=device().type == "cpu", mixed_precision="no")
        policy = PolicyModel(model, precision)
        optimiser = torch.optim.AdamW(
            policy.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        wrapped, optimiser = accelerator.prepare(policy, optimiser)
        plan = list(_order(len(examples), config, job.seed))
        tokens = 0
        with streaming(model, longest_sequence(branchings)):
            model.train()
            for step, batch in enumerate(plan, 1):
                rate = config.learning_rate * _schedule(step, len(plan), config.warmup)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                metrics = _step(accelerator, wrapped, optimiser, objective, batch, examples, branchings, config)
                tokens += int(metrics["tokens"])
                job.report(step, len(plan), {**metrics, "learning_rate": rate})
        if accelerator.is_main_process:
            _save(accelerator.unwrap_model(wrapped).model, tokenizer, job.output)
        return Checkpoint(
            path=job.output, steps=len(plan), tokens=tokens, preflight={**found, "dropped_examples": dropped}
        )


def _encode(
    objective: Objective, tokenizer: ChatTokenizer, job: Job, config: TrainConfig
) -> tuple[list[Example], list[Branching], int]:
    kept: list[tuple[Example, Branching]] = []
    for example in job.examples:
        branching = objective.branching(tokenizer, example, sampled=job.sampled_ids)
        if branching.tokens <= config.max_tokens:
            kept.append((example, branching))
    if not kept:
        raise WorkError(f"no example of at most {config.max_tokens} tokens: nothing to train on")
    examples, branchings = zip(*kept, strict=True)
    return list(examples), list(branchings), len(job.examples) - len(kept)


def _order(count: int, config: TrainConfig, seed: int) -> Iterator[list[int]]:
    """Batches of example numbers, a new order an epoch; the same for every method of one seed."""
    for epoch in range(config.epochs):
        numbers = list(range(count))
        random.Random(f"{seed}/{epoch}").shuffle(numbers)
        for start in range(0, count, config.batch_size):
            yield numbers[start : start + config.batch_size]


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then a cosine to a tenth of the peak. Steps count from 1."""
    rise = max(1, round(warmup * steps))
    if step <= rise:
        return step / rise
    progress = (step - rise) / max(1, steps - rise)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))


def _step(
    accelerator: Accelerator,
    policy: Policy,
    optimiser: Any,
    objective: Objective,
    batch: Sequence[int],
    examples: Sequence[Example],
    branchings: Sequence[Branching],
    config: TrainConfig,
) -> dict[str, float]:
    began = time.perf_counter()
    targets = [sum(map(len, branchings[i].continuations)) for i in batch]
    weight = objective.weight([examples[i] for i in batch], targets)
    own = batch[accelerator.process_index :: accelerator.num_processes]
    micro = batches_by_tokens([branchings[i] for i in own], config.micro_batch_tokens)
    totals: dict[str, float] = {"loss": 0.0}
    tokens = 0
    for numbers in micro:
        chosen = [own[n] for n in numbers]
        stream = Stream.pack([branchings[i] for i in chosen], accelerator.device)
        loss, metrics = objective.loss(policy, stream, [examples[i] for i in chosen])
        # Data-parallel wrappers average gradients over processes; the mean here is over the whole step.
        accelerator.backward(loss * (accelerator.num_processes / weight))
        tokens += stream.input_ids.shape[1]
        for name, value in {"loss": float(loss.detach()), **metrics}.items():
            totals[name] = totals.get(name, 0.0) + value
    norm = float(accelerator.clip_grad_norm_(policy.parameters(), config.max_grad_norm))  # type: ignore[attr-defined]
    if not math.isfinite(norm):
        raise WorkError("the gradient is not finite: lower the learning rate, or look at the examples' log-probs")
    optimiser.step()
    optimiser.zero_grad()
    seconds = time.perf_counter() - began
    return {
        **{name: value / weight for name, value in totals.items()},
        "grad_norm": norm,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "resident_bytes": psutil.Process().memory_info().rss,
    }


def _save(model: Any, tokenizer: ChatTokenizer, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(output)
    tokenizer.raw.save_pretrained(output)
