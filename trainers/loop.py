"""The one training loop. A method gives a config and an objective; the loop does everything else.

Examples → token ids → batches in one order for all methods of a seed → steps → a checkpoint.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs

from dadpo_bench.counts import counted
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.models import ChatTokenizer, chat_tokenizer, device, load_model, training
from dadpo_bench.models.flops import matmul_rate
from dadpo_bench.types import Checkpoint, Example, Job
from trainers.adapters import adapted
from trainers.checkpoint import TrainingState, save_model
from trainers.config import TrainConfig
from trainers.preflight import lines, preflight
from trainers.step import Drawing, Lessons, Objective, PolicyModel, Step

_PATIENCE = InitProcessGroupKwargs(timeout=timedelta(days=1))
"""NCCL gives up after ten minutes; one process may fill a cache of teacher logits for hours while the others wait."""


class LoopMethod:
    """A method trained by the loop: `train(job)` of the `Method` protocol."""

    def __init__(self, config: type[TrainConfig], objective: Callable[[Any, Job], Objective]) -> None:
        self._config, self._objective = config, objective

    def train(self, job: Job) -> Checkpoint:
        """Train from `job.start` and write an ordinary Hugging Face directory to `job.output`."""
        config = self._config.model_validate(dict(job.settings))
        accelerator = Accelerator(  # says which device is whose
            cpu=device().type == "cpu", mixed_precision="no", kwargs_handlers=[_PATIENCE]
        )
        torch.manual_seed(job.seed)
        tokenizer = chat_tokenizer(str(job.start), job.chat_template)
        objective = self._objective(config, job)
        _check_sharding(accelerator.distributed_type, config, objective)
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
            all_of_them = counted(len(job.examples), "examples")
            job.say(f"left out, longer than max_tokens={config.max_tokens}: {dropped} of {all_of_them}")
        if accelerator.num_processes > 1:
            job.say(f"{accelerator.num_processes} processes")
        adapters = adapted(model, config.lora) if config.lora else None
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
        step = Step(accelerator, wrapped, optimiser, objective, config, matmul_rate(precision.compute))
        plan = list(_order(len(lessons.examples), config, job.seed))
        measured = _when(len(plan), config.validations) if unseen.examples else set()
        progress = state.resume()
        if measured and not progress.step:
            job.report(0, len(plan), step.measure(unseen))
        for number, batch in enumerate(plan[progress.step :], progress.step + 1):
            if job.stop():
                state.keep(progress)
                raise KeyboardInterrupt
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


def _check_sharding(how: DistributedType, config: TrainConfig, objective: Objective) -> None:
    """Raises `UserError` for what would train something else, or fail half-way, under sharded weights."""
    if how is DistributedType.DEEPSPEED:
        # accelerate updates the weights within `backward`: behind each micro-batch, and before gradients are clipped.
        raise UserError("DeepSpeed would update the weights behind every micro-batch: shard by FSDP2 instead")
    if how is not DistributedType.FSDP:
        return
    if config.lora:
        raise UserError("lora under FSDP is not supported: train adapters data-parallel, or all weights sharded")
    if isinstance(objective, Drawing):
        raise UserError("a policy sharded by FSDP cannot draw responses: train this method data-parallel (--multi_gpu)")


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
