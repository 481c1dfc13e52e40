"""Where a run's work goes on a Ray cluster that need not be at hand, and how long each part of it takes there."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from dadpo_bench.errors import UserError
from dadpo_bench.planning.forecast import Setting, seconds_of
from dadpo_bench.planning.items import Step, Where
from dadpo_bench.planning.load import Ask, Load
from dadpo_bench.planning.shapes import Shapes
from dadpo_bench.recipe import EngineChoice
from dadpo_bench.stages import Stage


class Cluster(NamedTuple):
    """Equal machines, and what Ray gives of them."""

    nodes: int
    gpus: int
    """Of each machine."""
    workers: int
    """That there is place for; each computes on one GPU, however many it holds."""
    gpus_per_training: int

    @property
    def all_gpus(self) -> int:
        """Of all machines."""
        return self.nodes * self.gpus

    @property
    def trainings(self) -> int:
        """Side by side."""
        return self.all_gpus // self.gpus_per_training

    @property
    def crossing(self) -> bool:
        """Whether some training's GPUs are on several machines."""
        inside = self.nodes * (self.gpus // self.gpus_per_training)
        return inside < self.trainings


def cluster_of(engine: EngineChoice, nodes: int, gpus: int) -> Cluster:
    """Machines of `gpus` GPUs under a recipe's engine. Raises `UserError` for work that has no place on them."""
    per_worker = 1.0 if engine.gpus_per_worker is None else engine.gpus_per_worker
    wide = 1 if engine.gpus_per_training is None else engine.gpus_per_training
    if per_worker < 1 or per_worker % 1:
        raise UserError(f"engine.gpus_per_worker={per_worker:g}: --nodes plans workers that have whole GPUs")
    if per_worker > gpus:
        raise UserError(f"engine.gpus_per_worker={per_worker:g}: a worker is on one machine, and that has {gpus}")
    if wide < 1:
        raise UserError("engine.gpus_per_training=0: --nodes plans trainings on GPUs")
    if wide > nodes * gpus:
        raise UserError(f"engine.gpus_per_training={wide}: all machines together have {nodes * gpus}")
    fitting = nodes * (gpus // int(per_worker))
    return Cluster(nodes, gpus, min(engine.workers or fitting, fitting), wide)


class Time(NamedTuple):
    """That a step takes, or a run."""

    hours: float
    gpu_hours: float
    """Of all GPUs, idle ones too."""
    busy_gpu_hours: float
    """Of those that compute."""


class Placed(NamedTuple):
    """A step on the cluster."""

    stage: Stage
    who: tuple[str, ...]
    where: Where
    items: int
    side_by_side: int
    """Of the items, at most."""
    time: Time | None
    """None where a model that is not the recipe's decides it."""


class Placement(NamedTuple):
    """A run on the cluster: each step begins when the one before it is done."""

    cluster: Cluster
    steps: Sequence[Placed]

    @property
    def total(self) -> Time:
        """Of all steps whose time is known."""
        return Time(*map(sum, zip(*(step.time for step in self.steps if step.time), strict=True)))


def place(steps: Iterable[Step], cluster: Cluster, shapes: Shapes, setting: Setting) -> Placement:
    """Every step with its time. `setting.gpus` are those of a training."""
    room = {"workers": (cluster.workers, 1), "trainings": (cluster.trainings, cluster.gpus_per_training)}

    @cache
    def seconds(load: Load) -> float:
        return seconds_of(load, shapes, setting)

    def placed(step: Step) -> Placed:
        places, wide = room.get(step.where, (1, 1))
        calls = [[sum(map(seconds, item)) for item in call] for call in step.calls]
        most = min(places, max(map(len, calls), default=0))
        time = None
        if not any(isinstance(load, Ask) for load in step.loads):
            hours = sum(makespan(call, places) for call in calls) / 3600
            time = Time(hours, hours * cluster.all_gpus, sum(map(sum, calls)) * wide / 3600)
        return Placed(step.stage, step.who, step.where, sum(map(len, calls)), most, time)

    return Placement(cluster, [placed(step) for step in steps])


def makespan(seconds: Sequence[float], places: int) -> float:
    """Until all are done, where each in its order takes the place that is free first: list scheduling."""
    free = [0.0] * min(places, len(seconds))
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free, default=0)
