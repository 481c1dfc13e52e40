"""Before a run: the memory, FLOPs and hours of every stage on a machine that need not be at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from dadpo_bench.gpus import GPUS, Hardware
from dadpo_bench.models.flops import forward_flops
from dadpo_bench.models.logprobs import SCORING_TOKENS
from dadpo_bench.planning import footprint
from dadpo_bench.planning.footprint import MASTER, Memory
from dadpo_bench.planning.load import Ask, Load, Prune, Rollouts, Sample, Score, Train
from dadpo_bench.planning.shapes import Shapes
from dadpo_bench.stages import Stage

ROOM = 0.95
"""Share of a device's memory that may be planned with: the rest is the driver's and the allocator's."""

_RANK = 16


class Setting(NamedTuple):
    """The machine, and what is assumed of it."""

    hardware: Hardware
    gpus: int
    utilisation: float
    """Share of the device's FLOPs, and of its bandwidth, that is reached."""
    widening: str = "--gpus {}"
    """What shares a training out over more GPUs."""
    most_gpus: int = 64
    """Of a training."""


class Forecast(NamedTuple):
    """One load on that machine."""

    load: Load
    memory: Memory
    """Of each device."""
    flops: float
    hours: float
    fits: bool
    remedies: tuple[str, ...]
    """Changes that make it fit, by the same arithmetic; empty where it does, or where none was found."""


def forecast_of(load: Load, shapes: Shapes, setting: Setting) -> Forecast:
    """Memory, FLOPs and hours of a load, and what to change where it does not fit."""
    memory = memory_of(load, shapes, setting)
    fits = memory.total <= ROOM * setting.hardware.memory
    found = () if fits else tuple(remedies(load, shapes, setting))
    return Forecast(load, memory, flops_of(load, shapes), seconds_of(load, shapes, setting) / 3600, fits, found)


def memory_of(load: Load, shapes: Shapes, setting: Setting) -> Memory:
    """Peak bytes on each device."""
    compute = setting.hardware.compute
    if isinstance(load, Ask):
        return Memory()
    shape = shapes.of(load.model)
    match load:
        case Prune():
            return footprint.pruning(shape, shapes.student, load.longest, compute, taylor=bool(load.examples))
        case Rollouts():
            return footprint.rollouts(
                shape,
                math.ceil(load.batch_size / setting.gpus),
                load.longest,
                load.limit,
                compute,
                teacher=shapes.teacher if load.training.teacher else None,
                rank=load.training.rank,
            )
        case Sample():
            return footprint.sampling(shape, load.batch_size, load.longest, load.limit, compute)
        case Score():
            weights = MASTER if load.masters else compute
            beside = shapes.teacher if load.teacher else None
            return footprint.scoring(
                shape, SCORING_TOKENS, load.target_share * SCORING_TOKENS, weights, compute, beside
            )
        case Train():
            return footprint.training(
                shape,
                load.micro_batch,
                load.target_share * load.micro_batch,
                compute,
                again=load.copied_share,
                teacher=shapes.teacher if load.teacher else None,
                gpus=setting.gpus if load.shardable else 1,
                recompute=load.recompute,
                rank=load.rank,
            )


def flops_of(load: Load, shapes: Shapes) -> float:
    """FLOPs of a load: of a backward pass too where there is one, with the prompts where replies are sampled."""
    if isinstance(load, Ask):
        return 0
    models = [(shapes.of(load.model), load.passes)]
    if isinstance(load, Score | Train) and load.teacher:
        models.append((shapes.of("teacher"), 1))
    return sum(times * forward_flops(shape, load.passed, load.targets, load.visible_keys) for shape, times in models)


def seconds_of(load: Load, shapes: Shapes, setting: Setting) -> float:
    """By FLOPs; where replies are sampled, by what every new token reads of memory, if that takes longer."""
    hardware, reached = setting.hardware, setting.utilisation
    gpus = setting.gpus if isinstance(load, Train | Rollouts) else 1
    computing = flops_of(load, shapes) / (hardware.flops * reached * gpus)
    if not isinstance(load, Sample):
        return computing
    shape = shapes.of(load.model)
    rows = load.examples / load.batches / gpus
    held = rows * (load.prompt + load.reply / 2) * 2 * shape.layers * shape.keys
    weights, cached = _moved(load, hardware.compute)
    # A batch is sampled until its longest reply ends.
    moved = load.batches * load.limit * (weights * (shape.linear + shape.head) + cached * held)
    return max(computing, moved / (hardware.bandwidth * reached))


def _moved(load: Sample, compute: int) -> tuple[int, int]:
    """Bytes that every new token moves of a weight, and of a cached number."""
    if not isinstance(load, Rollouts) or compute == MASTER:
        return compute, compute
    cast = MASTER + 2 * compute  # read, written in the compute format, read again
    return cast if load.training.rank else compute, cast


def remedies(load: Load, shapes: Shapes, setting: Setting) -> Iterator[str]:
    """Settings under which the load fits, each by itself."""

    def fits(load: Load = load, setting: Setting = setting) -> bool:
        return memory_of(load, shapes, setting).total <= ROOM * setting.hardware.memory

    match load:
        case Prune() if load.examples and fits(replace(load, examples=0)):
            yield "student.prune.importance=magnitude: it needs no gradients"
        case Rollouts():
            for limit in _halves(load.limit):
                if fits(replace(load, limit=limit)):
                    yield f"methods.{load.training.who}.max_new_tokens={limit}"
                    break
            yield from _adapters(load.training, lambda training: fits(replace(load, training=training)))
            yield from _more_gpus(setting, lambda more: fits(setting=more))
        case Sample():
            for rows in _halves(load.batch_size):
                if fits(replace(load, batch_size=rows)):
                    yield f"{_SAMPLING[load.stage]}.batch_size={rows}"
                    break
        case Train():
            for tokens in _halves(load.micro_batch_tokens):
                if fits(replace(load, micro_batch_tokens=tokens)):
                    yield f"methods.{load.who}.micro_batch_tokens={tokens}"
                    break
            if not load.recompute and fits(replace(load, recompute=True)):
                yield f"methods.{load.who}.gradient_checkpointing=true: a third more time"
            yield from _adapters(load, fits)
            if load.cacheable and load.teacher and fits(replace(load, teacher=False)):
                yield f"methods.{load.who}.cached_top_k=64: the teacher's logits from the disk"
            if load.teacher and not load.rollouts and fits(replace(load, teacher=False, replies=2)):
                yield f"dadpo instead of {load.who}: it trains without the teacher in memory"
            yield from _more_gpus(setting, lambda more: fits(setting=more))
            yield from _smaller_student(load, shapes, setting)
    for name, gpu in sorted(GPUS.items(), key=lambda item: item[1].memory):
        if gpu.memory > setting.hardware.memory and fits(setting=setting._replace(hardware=gpu)):
            yield f"--gpu {name}"
            break


_SAMPLING = {
    Stage.teacher_responses: "teacher_sampling",
    Stage.student_responses: "student_sampling",
    Stage.responses: "evaluation.sampling",
}


def _halves(number: int) -> Iterator[int]:
    while number > 1:
        number //= 2
        yield number


def _adapters(training: Train, fits: Callable[[Train], bool]) -> Iterator[str]:
    if not training.rank and fits(replace(training, rank=_RANK)):
        yield f"methods.{training.who}.lora={{rank: {_RANK}}}: adapters are trained, not all weights"


def _more_gpus(setting: Setting, fits: Callable[[Setting], bool]) -> Iterator[str]:
    for gpus in (2**power for power in range(1, setting.most_gpus.bit_length())):
        if gpus > setting.gpus and fits(setting._replace(gpus=gpus)):
            yield setting.widening.format(gpus)
            return


def _smaller_student(load: Train, shapes: Shapes, setting: Setting) -> Iterator[str]:
    """The largest student of the same form in narrower MLPs that fits."""
    whole = shapes.student
    for tenths in range(9, 0, -1):
        width = whole.intermediate * tenths // 10
        lost = 3 * whole.hidden * whole.layers * (whole.intermediate - width)
        narrow = whole._replace(
            intermediate=width, parameters=whole.parameters - lost, linear=whole.linear - lost
        )  # fmt: skip
        memory = memory_of(load, shapes._replace(student=narrow), setting)
        if memory.total <= ROOM * setting.hardware.memory:
            yield f"a student of at most {narrow.parameters / 1e9:.1f}B parameters (its MLPs at {10 * tenths} %)"
            return
