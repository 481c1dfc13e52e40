"""Where a stage's work runs. Only this process writes the store; workers turn items into results."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, Protocol, TypeVar

from dadpo_bench import registry
from dadpo_bench.counts import counted
from dadpo_bench.errors import Interrupted, UserError, WorkError
from dadpo_bench.interrupts import finishing
from dadpo_bench.models.memory import release_memory
from dadpo_bench.ray_environment import prepare
from dadpo_bench.recipe import EngineChoice
from dadpo_bench.types import Checkpoint, Job, Method
from dadpo_bench.worker import launch

Item = TypeVar("Item")
Result = TypeVar("Result")

Worker = Callable[[Item], Result]

HOPELESS = 3
"""So many items fail and none succeeds: the others would too."""


class Engine(Protocol):
    """Maps workers over owed items, and trains."""

    trainings: int
    """How many may run side by side."""
    spreads: bool
    """Whether work goes to several workers."""

    @property
    def workers(self) -> str:
        """Who works just now, in words; empty where that is this process alone."""
        ...

    def share(self, folder: Path) -> None:
        """Models will lie in there. Raises `UserError` where a worker would not see them."""
        ...

    def map(
        self, make: Callable[[], Worker[Item, Result]], items: Sequence[Item], name: Callable[[Item], str]
    ) -> Iterator[tuple[Item, Result]]:
        """Yield (item, result) as they finish, in any order.

        `make` loads what a worker needs (a model); it is called only where there is an item. An item whose work raises
        does not keep the others from theirs: they are yielded, then `WorkError` is raised, which `name`s it. What the
        bench itself raises (`UserError`, `WorkError`) ends all at once.
        """
        ...

    def train(self, method: str, job: Job) -> Checkpoint:
        """Train one job by a registered method; called from as many threads as `trainings` allows."""
        ...

    def close(self) -> None:
        """Nothing more will be asked of it."""
        ...


class Failure(NamedTuple):
    """Why an item has no result."""

    why: str
    error: Exception | None = None
    """What was raised, where that was here."""


def attempt(worker: Worker[Item, Result], item: Item) -> Result | Failure:
    """The item's result, or what its work raised."""
    try:
        return worker(item)
    except (UserError, WorkError):
        raise
    except Exception as error:
        if "DADPO_BENCH_DEBUG" in os.environ:
            traceback.print_exc()
        traceback.clear_frames(error.__traceback__)  # with what they hold of the device's memory
        said = " ".join(str(error).split())[:300]
        return Failure(f"{type(error).__name__}: {said}" if said else type(error).__name__, error)


def succeeded(
    outcomes: Iterable[tuple[Item, Any]], name: Callable[[Item], str], expected: int
) -> Iterator[tuple[Item, Any]]:
    """Of all outcomes those that are results; `WorkError` behind them names the others."""
    failures: list[tuple[Item, Failure]] = []
    good = 0
    for item, outcome in outcomes:
        if not isinstance(outcome, Failure):
            good += 1
            yield item, outcome
            continue
        failures.append((item, outcome))
        if not good and len(failures) >= HOPELESS:
            break
    if not failures:
        return
    item, failure = failures[0]
    if expected == 1 and failure.error is not None:
        raise failure.error
    others = f", and {counted(len(failures) - 1, 'others')}" if len(failures) > 1 else ""
    raise WorkError(
        f"{len(failures)} of {expected} failed: {name(item)}{others} ({failure.why}); "
        "what is done is kept, the same command tries the rest again"
    )


class LocalEngine:
    """Everything in this process, one item after another; trainings in processes of their own where told so."""

    trainings = 1
    spreads = False
    workers = ""

    def __init__(self, launch: Sequence[str] = ()) -> None:
        self._launch = launch
        """Options of `accelerate launch`."""

    def share(self, folder: Path) -> None:
        """As of `Engine`: nobody works elsewhere."""

    def map(
        self, make: Callable[[], Worker[Item, Result]], items: Sequence[Item], name: Callable[[Item], str]
    ) -> Iterator[tuple[Item, Result]]:
        """As of `Engine`."""
        if not items:
            return
        worker = make()
        try:
            yield from succeeded(((item, attempt(worker, item)) for item in items), name, len(items))
        finally:
            del worker
            release_memory()  # one model in memory at a time

    def train(self, method: str, job: Job) -> Checkpoint:
        """As of `Engine`."""
        if self._launch:
            return launch(method, job, self._launch)
        trainer: Method = registry.methods.load(method)
        return trainer.train(job)

    def close(self) -> None:
        """As of `Engine`."""


def side_by_side(works: Sequence[Callable[[], Result]], engine: Engine, stopping: Event) -> list[Result]:
    """What all works return, in their order; as many run at a time as the engine trains. One that raises stops all.

    `stopping` is set by the first Ctrl-C and where a work raises: works that are told so end where they can go on. The
    second Ctrl-C closes the engine.
    """
    if engine.trainings == 1:
        return [work() for work in works]

    def begin(work: Callable[[], Result]) -> Result:
        if stopping.is_set():
            raise KeyboardInterrupt
        try:
            return work()
        except BaseException:
            stopping.set()
            raise

    with ThreadPoolExecutor(engine.trainings, thread_name_prefix="training") as pool, finishing(stopping.set):
        try:
            futures = [pool.submit(begin, work) for work in works]
            raised = [error for future in futures if (error := future.exception()) is not None]
        except KeyboardInterrupt:
            engine.close()
            raise
        for kind in (UserError, WorkError, Exception, Interrupted, KeyboardInterrupt):
            if told := next((error for error in raised if isinstance(error, kind)), None):
                raise told
        return [future.result() for future in futures]


def open_engine(choice: EngineChoice, options: Sequence[str]) -> Engine:
    """The engine of a recipe; `options` are those of `accelerate launch`. Raises `UserError` where it cannot be had."""
    if choice.name == "local":
        return LocalEngine(options)
    if options:
        raise UserError("--launch is for this machine; on Ray write engine.gpus_per_training in the recipe")
    prepare(here=not (choice.address or os.environ.get("RAY_ADDRESS")))
    try:
        from dadpo_bench.on_ray import RayEngine
    except ModuleNotFoundError as error:
        raise UserError(f"--engine ray: {error.name} is missing: pip install 'dadpo-bench[ray]'") from error
    return RayEngine(choice)
