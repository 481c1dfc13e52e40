"""Times the engines on one machine: responses of the embedded teacher by this process, and by one-core Ray workers.

Both answer the same prompts in the same batches, one behind the other, round by round. A rate counts from the first
result to the last one: what a worker takes to start (Python, torch, the model) is told apart.

usage: python -m benchmarks.engines [--prompts 96] [--rounds 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from dadpo_bench.engine import Engine, LocalEngine, open_engine
from dadpo_bench.models import find, weights_key
from dadpo_bench.progress import silent
from dadpo_bench.recipe import EngineChoice, load_recipe
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.responses import collect_responses
from dadpo_bench.store import open_store
from dadpo_bench.tasks import load_task
from dadpo_bench.types import Prompt, Sampling

REQUIRED = 0.85
"""Of this process's rate with as many threads as there are workers."""


class Timed:
    """An engine whose results are timed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.at: list[float] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def map(self, make: object, items: object, name: object) -> object:
        """As of `Engine`."""
        for pair in self._engine.map(make, items, name):
            self.at.append(time.perf_counter())
            yield pair


def rate(engine: Engine, prompts: list[Prompt], model: LocalModel) -> tuple[float, float]:
    """Batches a second from the first to the last, and seconds until the first."""
    timed, sampling = Timed(engine), Sampling(temperature=0, max_new_tokens=48, batch_size=4)
    with tempfile.TemporaryDirectory() as folder, closing(open_store(str(Path(folder) / "x.sqlite3"))) as store:
        began = time.perf_counter()
        collect_responses(Bench(store, timed, silent()), model, prompts, sampling, 0, "responses")
    return (len(timed.at) - 1) / (timed.at[-1] - timed.at[0]), timed.at[0] - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    recipe = load_recipe()
    directory = find(recipe.teacher.model)
    model = LocalModel("teacher", directory, weights_key(directory), recipe.teacher.chat_template)
    prompts = list(load_task(recipe.prompts.task, "train").prompts[: options.prompts])
    cores = os.cpu_count() or 1
    found: dict[str, list[tuple[float, float]]] = {"local": [], "ray": []}
    with closing(open_engine(EngineChoice(name="ray"), [])) as cluster:
        for _ in range(options.rounds):
            found["local"].append(rate(LocalEngine(), prompts, model))
            found["ray"].append(rate(cluster, prompts, model))
    ratio = median(theirs / ours for (ours, _), (theirs, _) in zip(found["local"], found["ray"], strict=True))
    if options.json:
        print(json.dumps({"rates": found, "ratio": ratio, "required": REQUIRED, "cores": cores}))
        return
    table = Table("engine", "batches/s", "first result after, s", title=f"{cores} cores, {len(prompts)} prompts")
    for name, rounds in found.items():
        table.add_row(name, *(f"{median(values):.3f}" for values in zip(*rounds, strict=True)))
    console = Console()
    console.print(table)
    console.print(f"Ray's rate is {ratio:.2f} of this process's (required: {REQUIRED})")


if __name__ == "__main__":
    main()
