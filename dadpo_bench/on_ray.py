"""The engine on a Ray cluster: placement, retries, back-pressure, lost machines and autoscaling are Ray's.

Stages that map go through Ray Data's actor pools, a block for each item; trainings are tasks of their own. Workers know
no store: what they make is streamed to the process that was started, which alone writes it. Models and checkpoints lie
where every machine sees them; see `engine.artefacts`.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import ray as _ray

from dadpo_bench import __version__, registry
from dadpo_bench.counts import counted
from dadpo_bench.engine import Failure, Worker, attempt, succeeded
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.models.precision import compute_dtype, compute_in
from dadpo_bench.recipe import EngineChoice
from dadpo_bench.types import Checkpoint, Job

ray: Any = _ray  # its annotations do not fit what its decorators make
cloudpickle: Any = _ray.cloudpickle

Item = TypeVar("Item")
Result = TypeVar("Result")

_REACH_SECONDS = 5.0
"""To a cluster's address."""

_PLACE_SECONDS = 120.0
"""Until the first worker has a place: an autoscaler may have to start a machine."""

_RECENT_SECONDS = 120.0
"""Who gave a result in so many seconds is at work."""

_RETRIES = 8
"""Of an item whose worker died: machines are lost, and an item that kills whoever touches it ends."""

_LOOK_SECONDS = 0.2
"""Between two looks at what a training tells."""

_RAISED = {"UserError": UserError, "WorkError": WorkError, "KeyboardInterrupt": KeyboardInterrupt}


class _Needs(NamedTuple):
    """Of a worker."""

    cpus: float
    gpus: float
    dtype: str
    version: str


class RayEngine:
    """As of `Engine`, on a cluster that is there already or, without an address, on one of this machine's own."""

    spreads = True

    def __init__(self, choice: EngineChoice) -> None:
        """Raises `UserError` where the cluster is missing, or has no place for a worker."""
        self._choice = choice
        self._closed = threading.Event()
        self._seen: dict[str, float] = {}
        self._connect()
        try:
            self._place()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        address = self._choice.address or os.environ.get("RAY_ADDRESS")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if address:
            _check_reachable(address)
        else:
            options |= {"include_dashboard": False}
        try:
            ray.init(address, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            hint = "; a cluster that asks for a token wants RAY_AUTH_MODE=token here" if address else ""
            raise UserError(f"--engine {address or 'ray'}: {' '.join(str(error).split())[:300]}{hint}") from error
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # Ray prints on stdout, whatever it was told, that machines are lost: amid the bars, and in what `--json` gives.
        ray._private.worker.print_to_stdstream = _nothing

    def _place(self) -> None:
        """How many workers there are, and that one has a place and computes as all will."""
        has = ray.cluster_resources()
        any_gpu = has.get("GPU", 0) > 0
        gpus = self._choice.gpus_per_worker if self._choice.gpus_per_worker is not None else float(any_gpu)
        self._wide = self._choice.gpus_per_training if self._choice.gpus_per_training is not None else int(any_gpu)
        cpus = self._choice.cpus_per_worker
        try:
            probe = ray.remote(num_cpus=cpus, num_gpus=gpus)(_probe).remote()
            done, _ = ray.wait([probe], timeout=_PLACE_SECONDS)
        except ImportError as error:  # told at once by Ray's client
            raise UserError(f"the cluster's machines cannot work: {error}; install dadpo-bench there") from error
        if not done:
            raise UserError(
                f"the cluster has no place for a worker of {cpus:g} cores and {gpus:g} GPUs: it has "
                f"{has.get('CPU', 0):g} and {has.get('GPU', 0):g}; see engine.cpus_per_worker, engine.gpus_per_worker"
            )
        try:
            version, dtype = ray.get(probe)
        except ray.exceptions.RayError as error:
            raise UserError(
                f"the cluster's machines cannot work: {_last_line(error)}; is dadpo-bench there?"
            ) from error
        if "DADPO_BENCH_DTYPE" not in os.environ:
            compute_in(dtype)
        self._needs = _Needs(cpus, gpus, str(compute_dtype()).removeprefix("torch."), __version__)
        _check_version(version)
        self._size = self._choice.workers or _fitting(has, cpus, gpus)
        self.trainings = _fitting(has, cpus, self._wide)

    @property
    def workers(self) -> str:
        """As of `Engine`."""
        now = time.monotonic()
        alive = sum(now - at < _RECENT_SECONDS for at in list(self._seen.values()))
        machines = sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())
        return f"({counted(alive, 'workers')} on {counted(machines, 'machines')})"

    def map(
        self, make: Callable[[], Worker[Item, Result]], items: Sequence[Item], name: Callable[[Item], str]
    ) -> Iterator[tuple[Item, Result]]:
        """As of `Engine`."""
        if items:
            yield from succeeded(self._outcomes(make, items), name, len(items))

    def _outcomes(self, make: Callable[[], Any], items: Sequence[Item]) -> Iterator[tuple[Item, Any]]:
        self._seen.clear()
        owed = set(range(len(items)))
        rows = [{"place": place, "item": cloudpickle.dumps(item)} for place, item in enumerate(items)]
        arguments = (cloudpickle.dumps(make), rows, min(self._size, len(rows)), self._needs)
        far = ray.util.client.ray.is_connected()
        for row in _plainly(_far(*arguments) if far else _stream(*arguments)):
            self._seen[row["worker"]] = time.monotonic()
            outcome = cloudpickle.loads(row["outcome"])
            if isinstance(outcome, BaseException):
                raise outcome
            if (place := row["place"]) in owed:
                owed.remove(place)
                yield items[place], outcome
        died = Failure("its worker died, and so did those that took it over")
        yield from ((items[place], died) for place in sorted(owed))

    def train(self, method: str, job: Job) -> Checkpoint:
        """As of `Engine`. A training whose machine is lost goes on elsewhere, from what it saved last."""
        desk = ray.remote(num_cpus=0)(_Desk).remote()
        given = cloudpickle.dumps(replace(job, report=_nothing, say=_nothing, stop=_never))
        alone = self._wide <= 1
        task = ray.remote(num_cpus=self._needs.cpus if alone else 0, num_gpus=self._wide if alone else 0)(
            _train if alone else _train_together
        )
        running = task.options(max_retries=_RETRIES).remote(method, given, desk, self._needs, self._wide)
        asks = alone or self.trainings > 1  # processes that share a training would not all hear it at one step
        told_to_stop = False
        try:
            while True:
                done, _ = ray.wait([running], timeout=_LOOK_SECONDS)
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
                    return _ended(ray.get(running))
        except ray.exceptions.RayError as error:
            if self._closed.is_set():
                raise KeyboardInterrupt from error
            raise WorkError(f"the training was lost: {_last_line(error)}; the same command goes on") from error
        finally:
            with suppress(Exception):
                ray.cancel(running, force=True)
                ray.kill(desk)

    def close(self) -> None:
        """As of `Engine`: ends what still runs for this process."""
        self._closed.set()
        with suppress(Exception):
            ray.shutdown()


def _plainly(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What the cluster itself fails with, in a line."""
    try:
        yield from rows
    except ray.exceptions.RayError as error:
        raise WorkError(f"the cluster lost this stage: {_last_line(error)}; the same command goes on") from error


def _far(*arguments: Any) -> Iterator[dict[str, Any]]:
    """`_stream` on the cluster: Ray Data does not run behind Ray's client."""
    stage = ray.remote(num_cpus=0)(_Stage).remote(*arguments)
    try:
        while (rows := ray.get(stage.take.remote())) is not None:
            yield from rows
    finally:
        with suppress(Exception):
            ray.kill(stage)


def _stream(make: bytes, rows: list[dict[str, Any]], size: int, needs: _Needs) -> Iterator[dict[str, Any]]:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # one item's block: told as its failure
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    blocks: Any = ray.data.from_items(rows, override_num_blocks=len(rows))
    rows.clear()  # they are the cluster's now
    warnings.filterwarnings("ignore", category=ray.util.annotations.RayDeprecationWarning)
    worked = blocks.map(
        _Worker,
        fn_constructor_args=(make, needs),
        compute=ray.data.ActorPoolStrategy(size=size),
        num_cpus=needs.cpus,
        num_gpus=needs.gpus,
        max_restarts=-1,
        max_task_retries=_RETRIES,
    )
    yield from worked.iter_rows()


class _Worker:
    """One of a pool. What it needs is made for its first item: an actor that fails while it is made says little."""

    def __init__(self, make: bytes, needs: _Needs) -> None:
        self._make, self._needs = make, needs
        self._worker: Any = None
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row with an item → one with its outcome, or with what ends the stage."""
        try:
            if self._worker is None:
                self._worker = _made(self._make, self._needs)
            outcome = attempt(self._worker, cloudpickle.loads(row["item"]))
            if isinstance(outcome, Failure):
                outcome = Failure(f"{outcome.why}, on {self._name}")
        except (UserError, WorkError) as error:
            outcome = error
        return {"place": row["place"], "worker": self._name, "outcome": cloudpickle.dumps(outcome)}


def _made(make: bytes, needs: _Needs) -> Any:
    try:
        _as_all(needs)
        return cloudpickle.loads(make)()
    except (UserError, WorkError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise WorkError(
            f"{socket.gethostname()} cannot begin: {type(error).__name__}: {said}; models and checkpoints lie where "
            "every machine sees them (engine.artefacts, HF_HOME)"
        ) from None


def _as_all(needs: _Needs) -> None:
    """This process computes as all the others."""
    _check_version(needs.version)
    compute_in(needs.dtype)
    import torch

    torch.set_num_threads(max(1, int(needs.cpus)))


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
                    self._rows.append(row)
                    self._news.notify()
        except BaseException as error:
            self._error = error
        with self._news:
            self._over = True
            self._news.notify()

    def take(self) -> list[dict[str, Any]] | None:
        """What has come since, waited for; None behind the last one."""
        with self._news:
            self._news.wait_for(lambda: self._rows or self._over)
            rows, self._rows = self._rows, []
        if not rows and self._error is not None:
            raise self._error
        return rows or None


class _Desk:
    """Where a training tells how far it is, and is told to stop. An actor."""

    def __init__(self) -> None:
        self._told: list[tuple[str, tuple[Any, ...]]] = []
        self._stop = False

    def tell(self, kind: str, *values: Any) -> None:
        """Kept until it is taken."""
        self._told.append((kind, values))

    def take(self) -> list[tuple[str, tuple[Any, ...]]]:
        """What was told since."""
        told, self._told = self._told, []
        return told

    def stop(self) -> None:
        """From here on it is to stop."""
        self._stop = True

    def stopping(self) -> bool:
        """Whether it is to."""
        return self._stop


def _at(desk: Any, job: Job) -> Job:
    """The job as it speaks from the cluster; without a desk it says nothing."""
    if desk is None:
        return job

    def say(line: str) -> None:
        ray.get(desk.tell.remote("say", line))

    def report(step: int, steps: int, metrics: Any) -> None:
        ray.get(desk.tell.remote("report", step, steps, dict(metrics)))

    return replace(job, report=report, say=say, stop=lambda: bool(ray.get(desk.stopping.remote())))


def _train(method: str, given: bytes, desk: Any, needs: _Needs, wide: int) -> tuple[str, Any]:
    """A training in this process: what became of it."""
    try:
        _as_all(needs)
        trainer: Any = registry.methods.load(method)
        job = _at(desk, cloudpickle.loads(given))
        return "done", trainer.train(replace(job, stop=_never) if wide > 1 else job).model_dump(mode="json")
    except (UserError, WorkError, KeyboardInterrupt) as error:
        return type(error).__name__, str(error)
    except Exception as error:
        where = socket.gethostname()
        return "WorkError", f"on {where}: {type(error).__name__}: {' '.join(str(error).split())[:500]}"


def _train_together(method: str, given: bytes, desk: Any, needs: _Needs, wide: int) -> tuple[str, Any]:
    """A training that several GPUs share, by Ray Train around the same loop: `_rank` in as many processes."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    job: Job = cloudpickle.loads(given)
    scaling = ScalingConfig(
        num_workers=wide, use_gpu=needs.gpus > 0, resources_per_worker={"CPU": needs.cpus, "GPU": float(needs.gpus > 0)}
    )
    ends = ray.remote(num_cpus=0)(_Desk).remote()
    try:
        TorchTrainer(
            _rank,
            train_loop_config={
                "method": method,
                "given": given,
                "desk": desk,
                "ends": ends,
                "needs": needs,
                "wide": wide,
            },
            scaling_config=scaling,
            run_config=RunConfig(
                name=f"ray-{job.output.name.strip('.')}",
                storage_path=str(job.output.parent / "ray"),
                failure_config=FailureConfig(max_failures=_RETRIES),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
            ),
        ).fit()
        told = ray.get(ends.take.remote())
    finally:
        shutil.rmtree(job.output.parent / "ray", ignore_errors=True)
    found: list[tuple[str, Any]] = [values[0] for _, values in told]
    return next((end for end in found if end[0] != "done"), found[0])


def _rank(settings: dict[str, Any]) -> None:
    """One of the processes. The first tells; of what went wrong any does."""
    rank = ray.train.get_context().get_world_rank()
    if settings["needs"].gpus == 0:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    desk = settings["desk"] if rank == 0 else None
    end = _train(settings["method"], settings["given"], desk, settings["needs"], settings["wide"])
    if rank == 0 or end[0] != "done":
        ray.get(settings["ends"].tell.remote("end", end))


def _ended(end: tuple[str, Any]) -> Checkpoint:
    kind, value = end
    if kind == "done":
        return Checkpoint.model_validate(value)
    raise _RAISED[kind](value)


def _probe() -> tuple[str, str]:
    return __version__, str(compute_dtype()).removeprefix("torch.")


def _check_version(version: str) -> None:
    if version != __version__:
        raise UserError(
            f"{socket.gethostname()} has dadpo-bench {__version__}, others {version}: install one everywhere"
        )


def _check_reachable(address: str) -> None:
    """Ray itself waits for minutes. Raises `UserError` where nobody answers."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local") or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_SECONDS).close()
    except OSError as error:
        raise UserError(f"--engine {address}: nobody answers there ({error.strerror or error})") from error


def _fitting(has: dict[str, float], cpus: float, gpus: float) -> int:
    """How many of those a cluster has place for; 1 where its autoscaler has yet to start a machine."""
    by_gpu = has.get("GPU", 0) / gpus if gpus else float("inf")
    return max(1, int(min(by_gpu, has.get("CPU", 0) / cpus)))


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


def _nothing(*_: Any, **__: Any) -> None:
    """For callbacks that stay with the starting side."""


def _never() -> bool:
    return False
