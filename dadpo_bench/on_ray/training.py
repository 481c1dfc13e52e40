"""A training on the cluster: in one process, or by Ray Train in as many as share it."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import suppress
from dataclasses import replace
from typing import Any

from dadpo_bench import registry
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.on_ray.cluster import AT_HEAD, RETRIES, Needs, as_all, cloudpickle, last_line, nothing, ray
from dadpo_bench.types import Checkpoint, Job

_SHARDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_OFFLOAD_PARAMS": "false",
}
"""For accelerate where GPUs share a training's weights, as in `examples/accelerate/fsdp2.yaml`; what is set stays."""

_TRIES = 3
"""More of a training that several processes share, after one of them failed: the others fail when a machine is lost."""

_RAISED = {"UserError": UserError, "WorkError": WorkError, "KeyboardInterrupt": KeyboardInterrupt}


def begun(method: str, job: Job, desk: Any, needs: Needs, wide: int) -> Any:
    """The training under way, as what Ray waits for; `ended` reads what that gives."""
    given = cloudpickle.dumps(replace(job, report=nothing, say=nothing, stop=_never))
    alone = wide <= 1
    task = ray.remote(num_cpus=needs.cpus if alone else 0, num_gpus=wide if alone else 0)(
        _train_alone if alone else _train_together
    )
    return task.options(max_retries=RETRIES).remote(method, given, desk, needs, wide)


def ended(end: tuple[str, Any]) -> Checkpoint:
    """What became of it. Raises what it raised."""
    kind, value = end
    if kind == "done":
        return Checkpoint.model_validate(value)
    raise _RAISED[kind](value)


class Desk:
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


def _train(method: str, given: bytes, desk: Any, needs: Needs, wide: int) -> tuple[str, Any]:
    """A training in this process: what became of it. Raises what nobody foresaw."""
    try:
        as_all(needs)
        trainer: Any = registry.methods.load(method)
        job = _at(desk, cloudpickle.loads(given))
        return "done", trainer.train(replace(job, stop=_never) if wide > 1 else job).model_dump(mode="json")
    except (UserError, WorkError, KeyboardInterrupt) as error:
        return type(error).__name__, str(error)


def _said(error: Exception) -> str:
    return f"on {socket.gethostname()}: {type(error).__name__}: {' '.join(str(error).split())[:500]}"


def _train_alone(*arguments: Any) -> tuple[str, Any]:
    """`_train`, which nothing but its own failure ends."""
    try:
        return _train(*arguments)
    except Exception as error:
        return "WorkError", _said(error)


def _train_together(method: str, given: bytes, desk: Any, needs: Needs, wide: int) -> tuple[str, Any]:
    """A training that several GPUs share, by Ray Train around the same loop: `_rank` in as many processes."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchTrainer

    job: Job = cloudpickle.loads(given)
    name, kept = f"ray-{job.output.name.strip('.')}", job.output.parent / "ray"
    shards = registry.methods[method].shards(job.settings) and needs.gpus > 0
    scaling = ScalingConfig(
        num_workers=wide, use_gpu=needs.gpus > 0, resources_per_worker={"CPU": needs.cpus, "GPU": float(needs.gpus > 0)}
    )
    ends = ray.remote(**AT_HEAD)(Desk).remote()
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
                "environment": _SHARDED if shards else {},
            },
            scaling_config=scaling,
            run_config=RunConfig(
                name=name,
                storage_path=str(kept),
                failure_config=FailureConfig(max_failures=_TRIES),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
            ),
        ).fit()
    except WorkerGroupError as error:
        first = next(iter(error.worker_failures.values()), error)
        return "WorkError", f"the training failed {_TRIES + 1} times: {last_line(first)}"
    finally:
        shutil.rmtree(kept / name, ignore_errors=True)
        with suppress(OSError):  # others train
            kept.rmdir()
    found: list[tuple[str, Any]] = [values[0] for _, values in ray.get(ends.take.remote())]
    return next((end for end in found if end[0] != "done"), found[0])


def _rank(settings: dict[str, Any]) -> None:
    """One of the processes. The first tells; of what went wrong any does.

    One that raises ends the others, which may wait for it, and Ray begins anew from what was saved last: with nothing
    to do where all is said.
    """
    rank, ends = ray.train.get_context().get_world_rank(), settings["ends"]
    if ray.get(ends.stopping.remote()):
        return
    for name, value in settings["environment"].items():
        os.environ.setdefault(name, value)
    if settings["needs"].gpus == 0:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    desk = settings["desk"] if rank == 0 else None
    try:
        end = _train(settings["method"], settings["given"], desk, settings["needs"], settings["wide"])
    except Exception as error:
        raise WorkError(_said(error)) from None
    if end[0] != "done":
        ray.get([ends.tell.remote("end", end), ends.stop.remote()])
        raise WorkError(end[1])
    if rank == 0:
        ray.get(ends.tell.remote("end", end))


def _never() -> bool:
    return False
