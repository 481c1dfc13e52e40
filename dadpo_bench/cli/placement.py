"""What `plan --nodes` shows: which part of a run is where on a cluster, for how long, and how many GPUs are idle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

from dadpo_bench.counts import counted
from dadpo_bench.planning import Cluster, Placed, Placement, Time


def placement_data(placement: Placement) -> dict[str, Any]:
    """The cluster, every step on it, and all of them."""
    cluster = placement.cluster
    return {
        "cluster": {**cluster._asdict(), "trainings": cluster.trainings},
        "steps": [{**step._asdict(), "time": step.time and step.time._asdict()} for step in placement.steps],
        "total": placement.total._asdict(),
    }


def cluster_line(cluster: Cluster) -> str:
    """What Ray makes of the machines."""
    trainings, wide = counted(cluster.trainings, "trainings"), counted(cluster.gpus_per_training, "GPUs")
    return f"Ray: {counted(cluster.workers, 'workers')}; {trainings} at a time, {wide} each"


def placement_table(placement: Placement) -> Table:
    """A line for each step, and one for all."""
    table = Table(title=f"on {counted(placement.cluster.all_gpus, 'GPUs')}", padding=(0, 1))
    table.add_column("stage")
    table.add_column("where")
    for name in ("hours", "GPU-hours", "busy"):
        table.add_column(name, justify="right", no_wrap=True)
    for step in placement.steps:
        table.add_row(escape(f"{step.stage}: {', '.join(step.who)}"), _where(step), *_times(step.time))
    table.add_section()
    table.add_row("all", "", *_times(placement.total))
    return table


def _where(step: Placed) -> str:
    match step.where:
        case "workers":
            return f"{counted(step.items, 'items')}, {counted(step.side_by_side, 'workers')}"
        case "trainings":
            return f"{counted(step.items, 'trainings')}, {step.side_by_side} at a time"
        case "asked":
            return "elsewhere, asked by the driver"
        case "driver":
            return "the driver"


def _times(time: Time | None) -> tuple[str, str, str]:
    """Its figures, and the share of all GPUs that compute meanwhile."""
    if time is None or not time.hours:
        return "–", "–", "–"
    return hours_text(time.hours), hours_text(time.gpu_hours), f"{100 * time.busy_gpu_hours / time.gpu_hours:.0f} %"


def hours_text(hours: float) -> str:
    """Of an hour enough digits that seconds show."""
    return f"{hours:,.2f}" if hours >= 1 else f"{hours:.4f}"


def cluster_assumptions(cluster: Cluster) -> Iterator[str]:
    """What a placement takes for granted, and leaves out."""
    yield (
        "Ray: an item (a batch of prompts, 16 pairs, a model's KL on a task, a judge's few ratings) goes to the worker "
        "that is free first, and so do trainings; a step begins when the one before it is done, all its workers at once"
    )
    yield (
        "not in it: starting a stage's workers (Python, the model from the disk), the network, autoscaling, lost "
        "machines, what the driver does alone (store, scores, board); every worker has its cores"
    )
    yield "GPU-hours: of all GPUs, idle ones too; busy: the share of them in which a GPU computes"
    if cluster.crossing:
        yield (
            f"a machine has {counted(cluster.gpus, 'GPUs')}, so the {cluster.gpus_per_training} of a training can be "
            "on several: what then crosses the network takes time that is not in it"
        )
