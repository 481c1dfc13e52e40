"""A stage that maps, through an actor pool of Ray Data: a block for each item, or each few, results as they come."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from dadpo_bench.engine import Failure, attempt
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.on_ray.cluster import AT_HEAD, RETRIES, Needs, Places, as_all, cloudpickle, last_line, ray

_TOGETHER, _ROUNDS = 8, 16
"""Items in a block at most, and blocks of a worker at least: a block costs Ray some 10 ms, whatever is in it."""

_FEW = 4
"""Blocks of a worker under which items are few."""

_IN_A_ROW = 3
"""Items that fail behind one another: they go to a new process, once, as this one, or its device, may be broken."""

_UNFETCHED = 1000
"""Rows that wait for a process that is not part of the cluster."""


def items_together(items: int, workers: int) -> int:
    """Of a block: one where items are few, so that the last worker is not waited for."""
    return max(1, min(_TOGETHER, items // (_ROUNDS * workers)))


def outcomes(make: bytes, rows: list[dict[str, Any]], together: int, places: Places) -> Iterator[dict[str, Any]]:
    """Of every row with a `place` and a pickled `item` one with its pickled `outcome`, the `worker` and its `machine`.

    `make` is pickled, too. As many rows go to a worker `together`. Raises `WorkError` for what the cluster itself fails
    with.
    """
    blocks = math.ceil(len(rows) / together)
    size, needs = min(places.workers, blocks), places.needs
    far = ray.util.client.ray.is_connected()
    try:
        yield from (_far if far else _stream)(make, rows, blocks, size, needs)
    except (ray.exceptions.RayError, ConnectionError) as error:  # the latter of Ray's client
        raise WorkError(f"the cluster lost this stage: {last_line(error)}; the same command goes on") from error


def _far(make: bytes, rows: list[dict[str, Any]], *others: Any) -> Iterator[dict[str, Any]]:
    """`_stream` on the cluster: Ray Data does not run behind Ray's client."""
    stage = ray.remote(**AT_HEAD)(_Stage).remote(make, rows, *others)
    rows.clear()
    try:
        while (rows := ray.get(stage.take.remote())) is not None:
            yield from rows
    finally:
        with suppress(Exception):
            ray.kill(stage)


def _stream(make: bytes, rows: list[dict[str, Any]], count: int, size: int, needs: Needs) -> Iterator[dict[str, Any]]:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # one item's block: told as its failure
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    blocks: Any = ray.data.from_items(rows, override_num_blocks=count)
    rows.clear()  # they are the cluster's now
    warnings.filterwarnings("ignore", category=ray.util.annotations.RayDeprecationWarning)
    worked = blocks.map(
        _Worker,
        fn_constructor_args=(make, needs),
        # Where items are few none waits behind another while a worker is idle; else the next one is there at once.
        compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1 if count < _FEW * size else None),
        num_cpus=needs.cpus,
        num_gpus=needs.gpus,
        max_restarts=-1,
        max_task_retries=RETRIES,
    )
    yield from worked.iter_rows()


class _Stage:
    """A stage's stream on the cluster, for a process that is not part of it. An actor."""

    def __init__(self, *arguments: Any) -> None:
        self._rows: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._over = False
        self._error: BaseException | None = None
        threading.Thread(target=self._work, args=arguments, daemon=True).start()

    def _work(self, *arguments: Any) -> None:
        try:
            for row in _stream(*arguments):
                with self._news:
                    self._news.wait_for(lambda: len(self._rows) < _UNFETCHED)
                    self._rows.append(row)
                    self._news.notify_all()
        except BaseException as error:
            self._error = error
        with self._news:
            self._over = True
            self._news.notify_all()

    def take(self) -> list[dict[str, Any]] | None:
        """What has come since, waited for; None behind the last one."""
        with self._news:
            self._news.wait_for(lambda: self._rows or self._over)
            rows, self._rows = self._rows, []
            self._news.notify_all()
        if not rows and self._error is not None:
            raise self._error
        return rows or None


class _Worker:
    """One of a pool. What it needs is made for its first item: an actor that fails while it is made says little."""

    def __init__(self, make: bytes, needs: Needs) -> None:
        self._make, self._needs = make, needs
        self._worker: Any = None
        self._failed = 0
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        context = ray.get_runtime_context()
        self._place = {"worker": context.get_actor_id(), "machine": context.get_node_id()}
        self._anew = context.was_current_actor_reconstructed

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row with an item → one with its outcome, or with what ends the stage."""
        try:
            if self._worker is None:
                self._worker = _made(self._make, self._needs)
            outcome = attempt(lambda item: cloudpickle.dumps(self._worker(cloudpickle.loads(item))), row["item"])
            if isinstance(outcome, Failure):
                self._failed += 1
                if self._failed >= _IN_A_ROW and not self._anew:
                    os._exit(1)
                outcome = cloudpickle.dumps(Failure(f"{outcome.why}, on {self._name}"))
            else:
                self._failed = 0
        except (UserError, WorkError) as error:
            outcome = cloudpickle.dumps(error)
        return {"place": row["place"], **self._place, "outcome": outcome}


def _made(make: bytes, needs: Needs) -> Any:
    try:
        as_all(needs)
        return cloudpickle.loads(make)()
    except (UserError, WorkError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise WorkError(
            f"{socket.gethostname()} cannot begin: {type(error).__name__}: {said}; models and checkpoints lie where "
            "every machine sees them (engine.artefacts, HF_HOME)"
        ) from None
