"""See `RayEngine`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from dadpo_bench.counts import counted
from dadpo_bench.engine import Failure, Worker, succeeded
from dadpo_bench.errors import WorkError
from dadpo_bench.on_ray.cluster import AT_HEAD, LOOK_SECONDS, check_seen, cloudpickle, connect, last_line, placed, ray
from dadpo_bench.on_ray.stream import items_together, outcomes
from dadpo_bench.on_ray.training import Desk, begun, ended
from dadpo_bench.recipe import EngineChoice
from dadpo_bench.types import Checkpoint, Job

Item = TypeVar("Item")
Result = TypeVar("Result")

_MACHINES_SECONDS = 2.0
"""Between two looks at which machines are there."""


class RayEngine:
    """As of `Engine`, on a cluster that is there already or, without an address, on one of this machine's own."""

    spreads = True

    def __init__(self, choice: EngineChoice) -> None:
        """Raises `UserError` where the cluster is missing, or has no place for a worker."""
        self._closed = threading.Event()
        self._machine_of: dict[str, str] = {}
        """Of every worker of the stage at hand that gave something."""
        self._machines: set[str] = set()
        self._looked = 0.0
        connect(choice.address)
        try:
            self._places = placed(choice)
        except BaseException:
            self.close()
            raise
        self.trainings = self._places.trainings

    @property
    def workers(self) -> str:
        """As of `Engine`."""
        if time.monotonic() - self._looked > _MACHINES_SECONDS:
            self._machines = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            self._looked = time.monotonic()
        alive = [machine for machine in self._machine_of.values() if machine in self._machines]
        return f"({counted(len(alive), 'workers')} on {counted(len(set(alive)), 'machines')})"

    def share(self, folder: Path) -> None:
        """As of `Engine`, of the machines that are there now."""
        check_seen(folder)

    def map(
        self, make: Callable[[], Worker[Item, Result]], items: Sequence[Item], name: Callable[[Item], str]
    ) -> Iterator[tuple[Item, Result]]:
        """As of `Engine`."""
        if items:
            yield from succeeded(self._outcomes(make, items), name, len(items))

    def _outcomes(self, make: Callable[[], Any], items: Sequence[Item]) -> Iterator[tuple[Item, Any]]:
        owed = set(range(len(items)))
        together = items_together(len(items), self._places.workers)
        for size in dict.fromkeys((together, 1)):  # of items that went down with others each is tried by itself
            self._machine_of.clear()
            rows = [{"place": place, "item": cloudpickle.dumps(items[place])} for place in sorted(owed)]
            for row in outcomes(cloudpickle.dumps(make), rows, size, self._places) if rows else ():
                self._machine_of[row["worker"]] = row["machine"]
                outcome = cloudpickle.loads(row["outcome"])
                if isinstance(outcome, BaseException):
                    raise outcome
                if (place := row["place"]) in owed:
                    owed.remove(place)
                    yield items[place], outcome
        died = Failure("its worker died, and so did those that took it over; Ray's logs say of what")
        yield from ((items[place], died) for place in sorted(owed))

    def train(self, method: str, job: Job) -> Checkpoint:
        """As of `Engine`. A training whose machine is lost goes on elsewhere, from what it saved last."""
        wide, desk = self._places.wide, ray.remote(**AT_HEAD)(Desk).remote()
        running = begun(method, job, desk, self._places.needs, wide)
        alone = wide <= 1
        asks = alone or self.trainings > 1  # processes that share a training would not all hear it at one step
        told_to_stop = False
        try:
            while True:
                done, _ = ray.wait([running], timeout=LOOK_SECONDS)
                if self._closed.is_set():
                    raise KeyboardInterrupt
                if asks and not told_to_stop and job.stop():
                    if not alone:
                        raise KeyboardInterrupt
                    told_to_stop = True
                    desk.stop.remote()
                for kind, values in ray.get(desk.take.remote()):
                    job.report(*values) if kind == "report" else job.say(*values)
                if done:
                    return ended(ray.get(running))
        except (ray.exceptions.RayError, ConnectionError) as error:
            if self._closed.is_set():
                raise KeyboardInterrupt from error
            raise WorkError(f"the training was lost: {last_line(error)}; the same command goes on") from error
        finally:
            with suppress(Exception):
                ray.cancel(running, force=True)
                ray.kill(desk)

    def close(self) -> None:
        """As of `Engine`: ends what still runs for this process."""
        self._closed.set()
        with suppress(Exception):
            ray.shutdown()
