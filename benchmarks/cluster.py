"""Runs the embedded recipe, on few prompts, on a simulated cluster that fares badly, and holds it against a local run.

Three runs of one command: in this machine's own process; on a cluster that loses the machine which works most, without
warning and in every stage (another joins behind it); on a cluster, killed (SIGKILL) in every stage and started again.
Rows of every table are compared: none may be lost, doubled or other than the local run's.

usage: python -m benchmarks.cluster [METHOD ...] [--set KEY=VALUE] [--machines 2] [--folder DIR] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from dadpo_bench.stages import Stage
from tests.simulated_cluster import QUIET, SimulatedCluster, kept, simulated_cluster

FEW = (
    "prompts.train=32",
    "prompts.validation=8",
    "tasks.assistance.prompts=16",
    "tasks.general.prompts=8",
    "teacher_sampling.batch_size=4",
    "student_sampling.batch_size=4",
    "evaluation.sampling.batch_size=4",
    "evaluation.canary_prompts=4",
    "evaluation.kl_prompts=4",
)
"""What makes a run short, and its batches many."""

_LOOK_SECONDS = 0.2
_SHORT = {Stage.models: 5.0, Stage.signals: 7.0, Stage.score: 0.0}
"""Stages that tell of little or no progress: struck so many seconds behind their begin."""


class Struck(NamedTuple):
    """A stage in which something was lost."""

    stage: str
    at: str
    """How far it was."""


class Watched:
    """A run of the program, and how far it says it is."""

    def __init__(self, command: Sequence[str], store: Path, log: Path) -> None:
        self._store = store
        with log.open("ab") as out:
            environ = {**os.environ, **QUIET, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                [*command, "--store", str(store)], stdout=out, stderr=out, env=environ, start_new_session=True
            )
        self._before, self._since = "", 0.0

    def reached(self, stages: Sequence[Stage]) -> Iterator[Struck]:
        """Each of those stages once it is in the midst of its work, until the run is over."""
        owed = list(stages)
        while self.process.poll() is None:
            time.sleep(_LOOK_SECONDS)
            stage, progress = self._now()
            if stage not in owed:
                continue
            short = _SHORT.get(stage)
            if progress if short is None else time.monotonic() - self._since >= short:
                owed.remove(stage)
                yield Struck(stage, progress or "under way")

    def _now(self) -> tuple[Stage | None, str]:
        """Its stage, and of a bar that moves how far it is."""
        if not self._store.is_file():
            return None, ""
        query = (
            "SELECT label, done, total, unit, behind, position FROM activities "
            "WHERE run_id = (SELECT max(id) FROM runs) AND NOT ended ORDER BY position"
        )
        try:
            with closing(sqlite3.connect(f"file:{self._store}?mode=ro", uri=True)) as raw:
                rows = raw.execute(query).fetchall()
        except sqlite3.OperationalError:
            return None, ""
        if not rows:
            return None, ""
        stage = rows[0][0]
        if stage != self._before:
            self._before, self._since = stage, time.monotonic()
        moved = (f"{done} of {total} {unit}" for _, done, total, unit, behind, at in rows if at and done > behind)
        return Stage(stage), next(moved, "")


def alone(command: Sequence[str], store: Path, log: Path) -> None:
    """The local run."""
    _ended(Watched(command, store, log), log)


def losing_machines(command: Sequence[str], store: Path, log: Path, cluster: SimulatedCluster) -> list[Struck]:
    """One run; where it was when a machine was lost."""
    struck = []
    run = Watched([*command, "--engine", cluster.address], store, log)
    for at in run.reached(list(Stage)):
        cluster.lose()
        cluster.add()
        struck.append(at)
    _ended(run, log)
    return struck


def killed(command: Sequence[str], store: Path, log: Path, cluster: SimulatedCluster) -> list[Struck]:
    """A run after another; where each was killed."""
    struck: list[Struck] = []
    owed = list(Stage)
    while True:
        run = Watched([*command, "--engine", cluster.address], store, log)
        at = next(run.reached(owed), None)
        if at is None:
            _ended(run, log)
            return struck
        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()
        struck.append(at)
        owed.remove(Stage(at.stage))


def _ended(run: Watched, log: Path) -> None:
    if run.process.wait():
        raise SystemExit(f"the run failed: {log.read_text()[-2000:]}")


def seconds(store: Path) -> dict[str, float]:
    """Of each stage, over all runs on the store; killed ones told of those stages alone that they ended."""
    with closing(sqlite3.connect(store)) as raw:
        return dict(raw.execute("SELECT stage, sum(seconds) FROM stage_times GROUP BY stage"))


def difference(theirs: Path, ours: Path) -> dict[str, int]:
    """Rows that only one of them has, and rows that one has twice, by table; tables without any are left out."""
    mine, other = kept(ours), kept(theirs)
    found = {}
    for table in mine.keys() | other.keys():
        twice = sum(a == b for a, b in pairwise(other.get(table, [])))
        if wrong := len(set(mine.get(table, [])) ^ set(other.get(table, []))) + twice:
            found[table] = wrong
    return found


_FATES: dict[str, Callable[..., list[Struck]]] = {"machines lost": losing_machines, "driver killed": killed}


@contextmanager
def timed(took: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    took[name] = time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=["dadpo", "kd"], metavar="METHOD")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--machines", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where stores are kept; the local run that is there goes on")
    parser.add_argument("--fate", choices=tuple(_FATES), action="append", help="one of the two alone")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    changes = [text for change in (*FEW, *options.changes) for text in ("--set", change)]
    command = [sys.executable, "-m", "dadpo_bench", "run", *options.methods, *changes]
    struck: dict[str, list[Struck]] = {}
    took: dict[str, float] = {}
    fates = {name: fate for name, fate in _FATES.items() if name in (options.fate or _FATES)}
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        stores = {name: folder / f"{name.replace(' ', '-')}.sqlite3" for name in ("local", *fates)}
        log = folder / "log"
        for name in fates:
            stores[name].unlink(missing_ok=True)
            shutil.rmtree(stores[name].with_suffix(""), ignore_errors=True)
        with timed(took, "local"):
            alone(command, stores["local"], log)
        for name, fate in fates.items():
            with simulated_cluster(options.machines) as cluster, timed(took, name):
                struck[name] = fate(command, stores[name], log, cluster)
        differences = {name: difference(stores[name], stores["local"]) for name in fates}
        rows = sum(map(len, kept(stores["local"]).values()))
        stages = seconds(stores["local"])
    if options.json:
        print(json.dumps({"struck": struck, "differences": differences, "rows": rows, "seconds": took}, indent=1))
        return
    _show(struck, differences, rows, took, stages)


def _show(
    struck: dict[str, list[Struck]],
    differences: dict[str, dict[str, int]],
    rows: int,
    took: dict[str, float],
    stages: dict[str, float],
) -> None:
    table = Table("stage", "local, s", *(f"{name}, at" for name in struck), title="struck in every stage")
    for stage in Stage:
        cells = (next((at.at for at in found if at.stage == stage), "over too soon") for found in struck.values())
        table.add_row(str(stage), f"{stages.get(stage, 0):.1f}", *cells)
    console = Console()
    console.print(table)
    for name, found in differences.items():
        said = ", ".join(f"{table}: {count}" for table, count in found.items()) or "none"
        console.print(f"{name}: {took[name]:.0f} s (local {took['local']:.0f}); of {rows:,} rows differ: {said}")


if __name__ == "__main__":
    main()
