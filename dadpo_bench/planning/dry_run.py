"""`--dry-run`: the stages with their sizes, and the time they take where the machine's rates are known."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from dadpo_bench.engine import LocalEngine
from dadpo_bench.models.embedded import NAME
from dadpo_bench.models.loading import at_hand
from dadpo_bench.models.precision import compute_dtype, device
from dadpo_bench.pipeline import done_stages
from dadpo_bench.plan import Plan
from dadpo_bench.planning.load import Ask, Load, Prune, Sample, Score, Train
from dadpo_bench.planning.workload import loads
from dadpo_bench.progress import dry
from dadpo_bench.stages import Stage
from dadpo_bench.stages.bench import Bench
from dadpo_bench.store import open_store
from dadpo_bench.store.connection import copy_database, store_file


class Rates(NamedTuple):
    """Tokens a second of the embedded model on two cores: bf16 as `make run` measured it, fp32 for AVX2, estimated."""

    sample: float
    """In batches of 24; rollouts, drawn in smaller ones, take longer."""
    score: float
    train: float


_CPU = {"torch.bfloat16": Rates(300, 1400, 350), "torch.float32": Rates(95, 400, 125)}


class Cost(NamedTuple):
    """What one stage has to do from nothing."""

    stage: str
    items: int
    unit: str
    at_most: bool
    """Whether there may be fewer: what decides it is known on the way alone."""
    tokens: int
    seconds: float | None
    """None where the rate of this model on this machine is not known."""
    done: bool
    """Whether the store holds it all."""


def estimate(plan: Plan, store: str) -> list[Cost]:
    """Sizes of every stage as if nothing were done, and which of them the store holds; loads no weights.

    Raises `UserError` for a store that cannot be one.
    """
    known = plan.recipe.teacher.endpoint is None and plan.recipe.teacher.model == NAME and device().type == "cpu"
    rates = _CPU[str(compute_dtype())] if known else None
    done = _done(plan, store_file(store))
    stages: dict[Stage, list[Load]] = {stage: [] for stage in Stage if stage not in (Stage.models, Stage.score)}
    for load in loads(plan):
        if load.stage in stages:
            stages[load.stage].append(load)
    return [
        Cost(
            str(stage),
            sum(load.items for load in work),
            work[0].unit if work else "",
            any(load.at_most for load in work),
            sum(load.tokens for load in work),
            sum(_seconds(load, rates) for load in work) if rates else None,
            stage in done,
        )
        for stage, work in stages.items()
    ]


def _seconds(load: Load, rates: Rates) -> float:
    """Of work on this machine; a judge that is asked elsewhere takes its own time."""
    match load:
        case Sample():
            return load.tokens / rates.sample
        case Score() | Train():
            rate = rates.train if isinstance(load, Train) else rates.score
            return load.tokens / rate + load.teacher * load.tokens / rates.score
        case Ask() | Prune():
            return 0


def _done(plan: Plan, store: Path | None) -> list[Stage]:
    """Stages that a SQLite store holds in full, found by walking through a copy of it."""
    teacher = plan.recipe.teacher
    sources = (teacher.model if teacher.endpoint is None else teacher.tokenizer, plan.recipe.student.model)
    if store is None or not store.is_file() or not all(at_hand(source) for source in sources if source):
        return []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / store.name
        copy_database(store, copy)
        opened = open_store(str(copy))
        opened.artefacts = store.with_suffix("")
        done = done_stages(Bench(opened, LocalEngine(), dry()), plan)
        opened.close()
    return done
