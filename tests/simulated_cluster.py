"""A Ray cluster on 127.0.0.1: a head without cores, and machines that are processes, to be lost without warning."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

QUIET = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: nothing listens but on 127.0.0.1
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_worker_niceness": "0",
}
"""Environment of the cluster, and of whoever uses it; some of it Ray reads when it is imported."""

os.environ.update(QUIET)

_OF_THE_RUN = ("runs", "stage_times", "activities", "alembic_version")
_OF_THE_MOMENT = {
    "responses": {"seconds"},
    "ratings": {"seconds", "asked"},
    "verdicts": {"seconds", "asked"},
    "derivations": {"seconds", "record"},
    "metrics": {"values"},
}
"""Columns of a table, and tables above, that tell when and how fast."""


def kept(store: Path) -> dict[str, list[str]]:
    """What a run gives, wherever it runs: the rows of every table, in one order."""
    with closing(sqlite3.connect(store)) as raw:
        tables = [name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: _rows(raw, table) for table in tables if table not in _OF_THE_RUN}


def _rows(raw: sqlite3.Connection, table: str) -> list[str]:
    columns = [name for _, name, *_ in raw.execute(f"PRAGMA table_info({table})")]
    wanted = ", ".join(f'"{name}"' for name in columns if name not in _OF_THE_MOMENT.get(table, ()))
    return sorted(map(repr, raw.execute(f"SELECT {wanted} FROM {table}")))


class SimulatedCluster:
    """Its machines have one core each."""

    def __init__(self, machines: int, cores: float = 1) -> None:
        from ray.cluster_utils import Cluster

        self._cores = cores
        head = {"num_cpus": 0, "include_dashboard": False}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self.machines: list[Any] = []
        for _ in range(machines):
            self.add()

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return str(self._cluster.address)

    def add(self) -> None:
        """One machine more."""
        self.machines.append(self._cluster.add_node(num_cpus=self._cores))

    def lose(self) -> None:
        """The machine that works most is gone, all its processes at once."""
        before = {id(machine): _worked(machine) for machine in self.machines}
        time.sleep(0.5)
        lost = max(self.machines, key=lambda machine: _worked(machine) - before[id(machine)])
        self.machines.remove(lost)
        for process in _processes(lost):
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        self._cluster.remove_node(lost, allow_graceful=False)

    def close(self) -> None:
        """All machines, and the head."""
        self._cluster.shutdown()


def _processes(machine: Any) -> list[psutil.Process]:
    """Its raylet, and what that started: workers, and who makes their environments."""
    raylet = psutil.Process(machine.all_processes["raylet"][0].process.pid)
    return [raylet, *raylet.children(recursive=True)]


def _worked(machine: Any) -> float:
    """Processor seconds."""
    seconds = 0.0
    for process in _processes(machine):
        with suppress(psutil.Error):
            seconds += sum(process.cpu_times()[:2])
    return seconds


@contextmanager
def simulated_cluster(machines: int = 2, cores: float = 1) -> Iterator[SimulatedCluster]:
    """Open while within."""
    cluster = SimulatedCluster(machines, cores)
    try:
        yield cluster
    finally:
        cluster.close()
