"""Where a stage's work runs. Only this process writes the store; workers turn items into results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from dadpo_bench import registry
from dadpo_bench.models.memory import release_memory
from dadpo_bench.types import Checkpoint, Job, Method
from dadpo_bench.worker import launch

Item = TypeVar("Item")
Result = TypeVar("Result")

Worker = Callable[[Item], Result]


class Engine(Protocol):
    """Maps a worker over owed items and yields (item, result) as they finish, in any order."""

    def map(self, make: Callable[[], Worker[Item, Result]], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """`make` loads what the worker needs (a model); it is called only where there is an item."""
        ...

    def train(self, method: str, job: Job) -> Checkpoint:
        """Train one job by a registered method."""
        ...


class LocalEngine:
    """Everything in this process, one item after another; trainings in processes of their own where told so."""

    def __init__(self, launch: Sequence[str] = ()) -> None:
        self._launch = launch
        """Options of `accelerate launch`."""

    def map(self, make: Callable[[], Worker[Item, Result]], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """As of `Engine`."""
        if not items:
            return
        worker = make()
        try:
            for item in items:
                yield item, worker(item)
        finally:
            del worker
            release_memory()  # one model in memory at a time

    def train(self, method: str, job: Job) -> Checkpoint:
        """As of `Engine`."""
        if self._launch:
            return launch(method, job, self._launch)
        trainer: Method = registry.methods.load(method)
        return trainer.train(job)
