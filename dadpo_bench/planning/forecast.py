"""Before a run: the memory, FLOPs and hours of every stage on a machine that need not be at hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from dadpo_bench.models.flops import forward_flops
from dadpo_bench.models.logprobs import SCORING_TOKENS
from dadpo_bench.planning import footprint
from dadpo_bench.planning.footprint import MASTER, Memory
from dadpo_bench.planning.hardware import GPUS, Hardware
from dadpo_bench.planning.shapes import Shapes
from dadpo_bench.planning.workload import Load

ROOM = 0.95
"""Share of a device's memory that may be planned with: the rest is the driver's and the allocator's."""

_MOST_GPUS, _RANK = 64, 16


class Setting(NamedTuple):
    """The machine, and what is assumed of it."""

    hardware: Hardware
    gpus: int
    utilisation: float
    """Share of the device's FLOPs, and of its bandwidth, that is reached."""


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
    compute, shape = setting.hardware.compute, shapes.of(load)
    if load.work == "ask":
        return Memory()
    if load.work == "prune":
        return footprint.pruning(shape, shapes.student, load.longest, compute, taylor=bool(load.examples))
    if load.work == "sample":
        return footprint.sampling(shape, load.batch_size, load.longest, load.limit, compute)
    share = load.replies * load.reply / (load.prompt + load.replies * load.reply)
    if load.work == "score":
        weights = MASTER if load.masters else compute
        beside = shapes.teacher if load.beside else None
        return footprint.scoring(shape, SCORING_TOKENS, share * SCORING_TOKENS, weights, compute, beside)
    longest = load.longest + load.replies * load.limit
    if load.max_tokens:
        longest = min(longest, load.max_tokens)
    # An example longer than a micro-batch is one of its own.
    tokens = max(longest, min(load.micro_batch_tokens, load.batch_size * longest))
    again = 0.0 if load.replies < 2 else (load.prompt + load.reply) / (load.prompt + 2 * load.reply)
    teacher = shapes.teacher if load.beside else None
    return footprint.training(
        shape,
        tokens,
        share * tokens,
        compute,
        again=again,
        teacher=teacher,
        gpus=setting.gpus,
        recompute=load.recompute,
        rank=load.rank,
    )


def flops_of(load: Load, shapes: Shapes) -> float:
    """FLOPs of a load: of a backward pass too where there is one, with the prompts where replies are sampled."""
    if load.work == "ask":
        return 0
    tokens = load.tokens + load.examples * load.prompt * (load.work == "sample")
    targets = load.tokens if load.work == "prune" else load.targets
    # Frozen weights have no gradient of their own; what is recomputed is one more pass.
    learning = (2 if load.rank else 3) + load.recompute
    passes = learning if load.work in ("train", "prune") else 1
    models = [(shapes.of(load), passes), *([(shapes.teacher, 1)] if load.beside else [])]
    return sum(times * forward_flops(shape, tokens, targets, load.visible_keys) for shape, times in models)


def seconds_of(load: Load, shapes: Shapes, setting: Setting) -> float:
    """By FLOPs; where replies are sampled, by what every new token reads of memory, if that takes longer."""
    hardware, reached = setting.hardware, setting.utilisation
    gpus = setting.gpus if load.work == "train" else 1
    computing = flops_of(load, shapes) / (hardware.flops * reached * gpus)
    if load.work != "sample":
        return computing
    shape = shapes.of(load)
    batches = math.ceil(load.examples / load.batch_size)
    rows = load.examples / batches
    held = rows * (load.prompt + load.reply / 2) * 2 * shape.layers * shape.keys
    # A batch is sampled until its longest reply ends.
    read = batches * load.limit * hardware.compute * (shape.linear + shape.head + held)
    return max(computing, read / (hardware.bandwidth * reached))


def remedies(load: Load, shapes: Shapes, setting: Setting) -> Iterator[str]:
    """Settings under which the load fits, each by itself."""
    limit = ROOM * setting.hardware.memory

    def fits(load: Load = load, setting: Setting = setting) -> bool:
        return memory_of(load, shapes, setting).total <= limit

    if load.work == "train":
        for tokens in _halves(load.micro_batch_tokens):
            if fits(load._replace(micro_batch_tokens=tokens)):
                yield f"methods.{load.who}.micro_batch_tokens={tokens}"
                break
        if not load.recompute and fits(load._replace(recompute=True)):
            yield f"methods.{load.who}.gradient_checkpointing=true: a third more time"
        if not load.rank and fits(load._replace(rank=_RANK)):
            yield f"methods.{load.who}.lora={{rank: {_RANK}}}: adapters are trained, not all weights"
        if load.cacheable and load.beside and fits(load._replace(beside="")):
            yield f"methods.{load.who}.cached_top_k=64: the teacher's logits from the disk"
        if load.beside and fits(load._replace(beside="", replies=2)):
            yield f"dadpo instead of {load.who}: it trains without the teacher in memory"
        for gpus in (2**power for power in range(1, _MOST_GPUS.bit_length())):
            if gpus > setting.gpus and fits(setting=setting._replace(gpus=gpus)):
                yield f"--gpus {gpus}"
                break
        yield from _smaller_student(load, shapes, setting)
    if load.work == "sample":
        for rows in _halves(load.batch_size):
            if fits(load._replace(batch_size=rows)):
                yield f"{_SAMPLING[load.stage]}.batch_size={rows}"
                break
    if load.work == "prune" and load.examples and fits(load._replace(examples=0)):
        yield "student.prune.importance=magnitude: it needs no gradients"
    for name, gpu in sorted(GPUS.items(), key=lambda item: item[1].memory):
        other = setting._replace(hardware=gpu)
        if gpu.memory > setting.hardware.memory and memory_of(load, shapes, other).total <= ROOM * gpu.memory:
            yield f"--gpu {name}"
            break


_SAMPLING = {
    "teacher-responses": "teacher_sampling",
    "student-responses": "student_sampling",
    "responses": "evaluation.sampling",
}


def _halves(number: int) -> Iterator[int]:
    while number > 1:
        number //= 2
        yield number


def _smaller_student(load: Load, shapes: Shapes, setting: Setting) -> Iterator[str]:
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
