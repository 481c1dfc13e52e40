"""The one training loop. A method gives a config and an objective; the loop does everything else.

Examples → branchings → micro-batches of at most `micro_batch_tokens` unique tokens → one optimiser step a
`batch_size` examples. The loss of a step is a mean over the whole step, so how it is cut into
micro-batches (or shared among processes) changes nothing but memory.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dadpo_bench.errors import UserError, WorkError
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
    streaming,
    token_log_probs,
    training,
)
from dadpo_bench.models.flops import matmul_rate, training_flops
from dadpo_bench.models.memory import recompute_layers, resident_bytes
from dadpo_bench.types import Checkpoint, Example, Job
from trainers.adapters import adapted
from trainers.checkpoint import TrainingState, save_model
from trainers.config import TrainConfig
from trainers.preflight import lines, preflight

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

    def forward(self, stream: Stream, read: Read | None = None) -> Tensor:
        """As of `Policy`."""
        with self.precision.autocast():
            hidden = hidden_states(self.model, stream)
            head = Head(self.model)
            if read is not None:
                return read(head, hidden, stream)
            return token_log_probs(head, hidden, stream, self.precision.compute)


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


class LoopMethod:
    """A method trained by the loop: `train(job)` of the `Method` protocol."""

    def __init__(self, config: type[TrainConfig], objective: Callable[[Any, Job], Objective]) -> None:
        self._config, self._objective = config, objective

    def train(self, job: Job) -> Checkpoint:
        """Train from `job.start` and write an ordinary Hugging Face directory to `job.output`."""
        config = self._config.model_validate(dict(job.settings))
        accelerator = Accelerator(cpu=device().type == "cpu", mixed_precision="no")  # says which device is whose
        torch.manual_seed(job.seed)
        tokenizer = chat_tokenizer(str(job.start), job.chat_template)
        objective = self._objective(config, job)
        lessons, dropped = _encode(objective, tokenizer, job, job.examples, config.max_tokens)
        if not lessons.examples:
            raise WorkError(f"no example of at most {config.max_tokens} tokens: nothing to train on")
        unseen, _ = _encode(objective, tokenizer, job, job.validation, config.max_tokens)
        if config.select == "best" and not unseen.examples:
            raise UserError("select: best is chosen on validation examples, and there are none")
        precision = training()  # fp32 masters whatever the machine computes in
        model = load_model(job.start, precision)
        found = preflight(model, tokenizer, *lessons, precision)
        for line in lines(found):
            job.say(line)
        if dropped:
            job.say(
                f"{dropped} of {len(job.examples)} examples are longer than max_tokens={config.max_tokens}: left out"
            )
        if accelerator.num_processes > 1:
            job.say(f"{accelerator.num_processes} processes")
        adapters = adapted(model, config.lora) if config.lora else None
        if config.gradient_checkpointing:
            recompute_layers(model)
        policy = PolicyModel(model, precision)
        optimiser = torch.optim.AdamW(
            [p for p in policy.parameters() if p.requires_grad],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        wrapped, optimiser = accelerator.prepare(policy, optimiser)
        state = TrainingState(
            job, accelerator, lambda folder: save_model(accelerator, wrapped, tokenizer, folder, adapters)
        )
        step = _Step(accelerator, wrapped, optimiser, objective, config, matmul_rate(precision.compute))
        plan = list(_order(len(lessons.examples), config, job.seed))
        measured = _when(len(plan), config.validations) if unseen.examples else set()
        progress = state.resume()
        if measured and not progress.step:
            job.report(0, len(plan), step.measure(unseen))
        for number, batch in enumerate(plan[progress.step :], progress.step + 1):
            rate = config.learning_rate * _schedule(number, len(plan), config.warmup)
            metrics = step.take(lessons, batch, rate, number)
            progress.step, progress.tokens = number, progress.tokens + int(metrics["tokens"])
            if number in measured:
                metrics |= step.measure(unseen)
                if config.select == "best":
                    state.offer(progress, metrics["validation_loss"])
            job.report(number, len(plan), metrics)
            state.save(progress)
        state.finish(progress)
        return Checkpoint(
            path=job.output,
            steps=progress.best_step or len(plan),
            tokens=progress.tokens,
            preflight={**found, **getattr(objective, "record", {}), "dropped_examples": dropped},
        )


def _encode(
    objective: Objective, tokenizer: ChatTokenizer, job: Job, examples: Sequence[Example], limit: int
) -> tuple[Lessons, int]:
    """Examples of at most `limit` tokens, and how many were longer."""
    lessons = Lessons([], [])
    for example in examples:
        branching = objective.branching(tokenizer, example, sampled=job.sampled_ids)
        if branching.tokens <= limit:
            lessons.examples.append(example)
            lessons.branchings.append(branching)
    return lessons, len(examples) - len(lessons.examples)


def _order(count: int, config: TrainConfig, seed: int) -> Iterator[list[int]]:
    """Batches of example numbers, a new order an epoch; the same for every method of one seed."""
    for epoch in range(config.epochs):
        numbers = list(range(count))
        random.Random(f"{seed}/{epoch}").shuffle(numbers)
        for start in range(0, count, config.batch_size):
            yield numbers[start : start + config.batch_size]


def _when(steps: int, times: int) -> set[int]:
    """Steps behind which validation is measured: evenly spaced, the last one among them."""
    return {math.ceil(steps * i / times) for i in range(1, times + 1)}


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then a cosine to a tenth of the peak. Steps count from 1."""
    rise = max(1, round(warmup * steps))
    if step <= rise:
        return step / rise
    progress = (step - rise) / max(1, steps - rise)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class _Step:
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
        with self._reading(lessons, batch, number) as read:
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
            with policy.precision.autocast():
                drawn = self.objective.draw(policy.model, [lessons.examples[i] for i in batch], number)
            branchings = dict(enumerate(lessons.branchings)) | dict(zip(batch, drawn, strict=True))
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
        limit, processes = self.config.micro_batch_tokens, self.accelerator.num_processes
        shares = []
        for process in range(processes):
            own = batch[process::processes]
            pieces = batches_by_tokens([lessons.branchings[i] for i in own], limit)
            shares.append([[own[n] for n in piece] for piece in pieces])
        micro = [(piece, 1) for piece in shares[self.accelerator.process_index]]
        return micro + [([batch[0]], 0)] * (max(map(len, shares)) - len(micro))
