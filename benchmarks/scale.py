"""How many workers one driver feeds: a stage over Ray workers that wait where a GPU would compute.

What is real: the stage and its store, the engine, Ray's scheduler, object store and actors, on machines of eight
workers that are processes here. What is not: a batch takes as long as `plan` says it takes one H100 (vicuna-7b's: 32
responses, 16 pairs), and gives a made-up result of a real one's size. All workers have started before the first batch;
figures are of the time from when every worker has had one until one may have had its last.

    rows/s      responses, or pairs, that arrive and are stored
    efficiency  of as many rows as so many workers would compute alone, if nobody had to feed them
    driver      of a core, and resident memory at the first and at the last of these rows
    ceiling     rows/s where nothing waits: all that driver and machines do besides

usage: python -m benchmarks.scale [--workers 1 4 16 64] [--seconds 80] [--utilisation 0.4] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

from dadpo_bench.engine import Engine, open_engine
from dadpo_bench.models import find, frozen, weights_key
from dadpo_bench.plan import make_plan
from dadpo_bench.planning import Sample, Score, Setting, forecast_of, hardware_of, loads, shapes_of
from dadpo_bench.progress import silent
from dadpo_bench.recipe import EngineChoice, load_recipe
from dadpo_bench.stages import Stage
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.responses import collect_responses
from dadpo_bench.stages.signals import PAIRS, Scored, collect_signals
from dadpo_bench.store import open_store
from dadpo_bench.types import Prompt, Reply, Response, Sampling, SequenceLogProb
from tests.simulated_cluster import simulated_cluster

REQUIRED = 0.9
"""Efficiency at the most workers."""

_TOKENS = 400
"""Of a reply."""
_PER_MACHINE = 8


class Kind(NamedTuple):
    """A stage, as workers that wait see it."""

    batch: int
    """Rows of one."""
    seconds: float
    """One batch takes."""
    work: Callable[[Bench, LocalModel, int], None]
    """Do so many rows."""
    result: Callable[[Any], Any]
    """Of a batch."""


_COMMON = tuple(random.Random(0).randrange(256) for _ in range(_TOKENS - 3))
_TEXT = " ".join(f"w{token}" for token in _COMMON)


def reply(seed: int) -> Reply:
    """One of its own, of which Python holds the beginning."""
    own = tuple((seed >> shift) % 256 for shift in (0, 8, 16))
    return Reply(text=_TEXT, token_ids=own + _COMMON)


def prompts(rows: int) -> list[Prompt]:
    return [Prompt(id=str(row), turns=(f"Number {row}: " + "some words of a question " * 8,)) for row in range(rows)]


def answer(bench: Bench, model: LocalModel, rows: int) -> None:
    sampling = Sampling(temperature=0, max_new_tokens=512, batch_size=32)
    collect_responses(bench, model, prompts(rows), sampling, 0, "responses")


def answers(batch: Any) -> list[Response]:
    return [Response(prompt=prompt, replies=(reply(int(prompt.id)),)) for prompt in batch.prompts]


def score(bench: Bench, model: LocalModel, rows: int) -> None:
    pairs = [Scored(prompt, reply(row), reply(-1 - row)) for row, prompt in enumerate(prompts(rows))]
    collect_signals(bench, model, pairs, frozen(), sampled=True, label="signals")


def scores(batch: Any) -> list[list[SequenceLogProb]]:
    return [[SequenceLogProb(-100.0, _TOKENS)] * 2 for _ in batch.branchings.args[1]]


class Waiting:
    """An engine whose workers wait instead of computing; when each result came, and from whom."""

    def __init__(self, engine: Engine, kind: Kind, seconds: float, workers: int, folder: Path) -> None:
        self._engine, self._kind, self._seconds = engine, kind, seconds
        self._workers, self._folder = workers, folder
        """Where each leaves its name when it has started."""
        self.came: list[tuple[float, float, int]] = []
        """Clock, the driver's processor seconds, its resident bytes."""
        self.first: dict[str, int] = {}
        """Of each worker: which result was its first."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def map(self, make: object, items: Sequence[Any], name: object) -> Iterator[tuple[Any, Any]]:
        """As of `Engine`."""
        kind, seconds, me = self._kind, self._seconds, psutil.Process()

        folder, workers = self._folder, self._workers

        def worker() -> Callable[[Any], tuple[str, Any]]:
            who = str(os.getpid())
            (folder / who).touch()
            while len(list(folder.iterdir())) < workers:
                time.sleep(0.5)

            def work(item: Any) -> tuple[str, Any]:
                time.sleep(seconds)
                return who, kind.result(item)

            return work

        for item, (who, result) in self._engine.map(worker, items, name):  # type: ignore[arg-type]
            self.came.append((time.perf_counter(), time.process_time(), me.memory_info().rss))
            self.first.setdefault(who, len(self.came) - 1)
            yield item, result


class Measured(NamedTuple):
    """Of a stage with so many workers."""

    workers: int
    rows_per_second: float
    efficiency: float | None
    """None where nothing waits."""
    cores: float
    """Of the driver."""
    milliseconds: float
    """Of the driver's processor, a batch."""
    memory: tuple[float, float]
    """MB at the first row of the time that counts, and at the last."""


def measured(engine: Engine, kind: Kind, model: LocalModel, workers: int, batches: int, seconds: float) -> Measured:
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as started,
        closing(open_store(str(Path(folder) / "x.sqlite3"))) as store,
    ):
        waiting = Waiting(engine, kind, seconds, workers, Path(started))
        kind.work(Bench(store, waiting, silent()), model, batches * kind.batch)  # type: ignore[arg-type]
    if len(waiting.first) < workers:
        raise SystemExit(f"{len(waiting.first)} of {workers} workers had a batch: give them more --seconds")
    begin, end = max(waiting.first.values()), len(waiting.came) - workers
    if end <= begin:
        raise SystemExit(f"the last of {workers} workers began when others had ended: give them more --seconds")
    (clock, processor, before), (until, spent, after) = waiting.came[begin], waiting.came[end]
    took, done = until - clock, end - begin
    rate = done / took
    return Measured(
        workers,
        rate * kind.batch,
        rate * seconds / workers if seconds else None,
        (spent - processor) / took,
        1000 * (spent - processor) / done,
        (before / 1e6, after / 1e6),
    )


def kinds(utilisation: float) -> dict[str, Kind]:
    """With the seconds that `plan` has for one H100."""
    recipe = load_recipe("vicuna-7b-pruned20")
    plan = make_plan(recipe, list(recipe.methods), 1)
    config = Path(__file__).parents[1] / "examples" / "configs" / "vicuna-7b-v1.5.json"
    shapes = shapes_of(recipe, {"teacher": config})
    setting = Setting(hardware_of("h100-80gb"), 1, utilisation)
    seconds = {}
    for load in loads(plan):
        if isinstance(load, Sample | Score) and load.model == "teacher" and load.stage not in seconds:
            batch = load.batch_size if isinstance(load, Sample) else PAIRS
            seconds[load.stage] = 3600 * forecast_of(load, shapes, setting).hours * batch / load.examples
    return {
        "responses": Kind(32, seconds[Stage.teacher_responses], answer, answers),
        "signals": Kind(PAIRS, seconds[Stage.signals], score, scores),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=80, help="that each number of workers works")
    parser.add_argument("--utilisation", type=float, default=0.4, help="of the H100's FLOPs and bandwidth")
    parser.add_argument("--stage", choices=("responses", "signals"), action="append")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    directory = find(load_recipe().teacher.model)
    model = LocalModel("teacher", directory, weights_key(directory))
    found: dict[str, list[Measured]] = {}
    wanted = {name: kind for name, kind in kinds(options.utilisation).items() if name in (options.stage or [name])}
    machines = -(-max(options.workers) // _PER_MACHINE)
    with simulated_cluster(machines, cores=_PER_MACHINE) as cluster:
        for workers in options.workers:
            choice = EngineChoice(name="ray", address=cluster.address, workers=workers)
            with closing(open_engine(choice, [])) as engine:
                for name, kind in wanted.items():
                    batches = max(3, round(options.seconds / kind.seconds)) * workers
                    measure = measured(engine, kind, model, workers, batches, kind.seconds)
                    found.setdefault(name, []).append(measure)
        with closing(open_engine(EngineChoice(name="ray", address=cluster.address, workers=4), [])) as engine:
            ceilings = {name: measured(engine, kind, model, 4, 1000, 0.0) for name, kind in wanted.items()}
    if options.json:
        told = {name: [m._asdict() for m in rows] for name, rows in found.items()}
        limits = {name: m._asdict() for name, m in ceilings.items()}
        print(json.dumps({"stages": told, "ceilings": limits, "required": REQUIRED}, indent=1))
        return
    console = Console()
    for name, rows in found.items():
        kind = wanted[name]
        table = Table(title=f"{name}: batches of {kind.batch}, {kind.seconds:.2f} s each")
        for head in ("workers", "rows/s", "efficiency", "driver: cores", "ms a batch", "MB, first and last"):
            table.add_column(head, justify="right")
        for m in (*rows, ceilings[name]):
            share = "ceiling" if m.efficiency is None else f"{m.efficiency:.3f}"
            memory = f"{m.memory[0]:.0f}, {m.memory[1]:.0f}"
            cells = (f"{m.rows_per_second:,.0f}", share, f"{m.cores:.2f}", f"{m.milliseconds:.1f}", memory)
            table.add_row(str(m.workers), *cells)
        console.print(table)
    console.print(f"required: an efficiency of {REQUIRED} at {max(options.workers)} workers")


if __name__ == "__main__":
    main()
