"""A Ray cluster: reached, found to be what a run needs, and what its processes need to compute alike."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import ray as _ray

from dadpo_bench import __version__
from dadpo_bench.errors import UserError
from dadpo_bench.models.precision import compute_dtype, compute_in
from dadpo_bench.ray_environment import unsaid
from dadpo_bench.recipe import EngineChoice

ray: Any = _ray  # its annotations do not fit what its decorators make
cloudpickle: Any = _ray.cloudpickle

RETRIES = 8
"""Of an item whose worker died: machines are lost, and an item that kills whoever touches it ends."""

AT_HEAD = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
"""Where an actor lives that must not be lost with any machine: whoever loses the head loses the cluster."""

LOOK_SECONDS = 0.2
"""Between two looks at what changes elsewhere."""

_REACH_SECONDS = 5.0
"""To a cluster's address."""

_PLACE_SECONDS, _START_SECONDS = 120.0, 600.0
"""Until others leave the first worker a place; until an autoscaler has started a machine for it."""

_LATE_SECONDS, _LOOKS_SECONDS = 10.0, 60.0
"""Until a machine sees a file that was written elsewhere; until all machines have told whether they do."""


class Needs(NamedTuple):
    """Of a worker."""

    cpus: float
    gpus: float
    dtype: str
    version: str


class Places(NamedTuple):
    """Of a cluster."""

    needs: Needs
    workers: int
    """At work at a time."""
    trainings: int
    """Side by side."""
    wide: int
    """GPUs of a training."""


def connect(address: str | None) -> None:
    """To the cluster at an address, or on this machine's own. Raises `UserError` where that cannot be."""
    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address:
        _check_reachable(address)
    else:
        options |= {"include_dashboard": False}
    try:
        with unsaid():
            ray.init(address or "local", **options)  # never whatever cluster was started here last
    except (ConnectionError, RuntimeError, ValueError) as error:
        hint = "; a cluster that asks for a token wants RAY_AUTH_MODE=token here" if address else ""
        raise UserError(f"--engine {address or 'ray'}: {' '.join(str(error).split())[:300]}{hint}") from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Ray prints on stdout, whatever it was told, that machines are lost: amid the bars, and in what `--json` gives.
    ray._private.worker.print_to_stdstream = nothing


def placed(choice: EngineChoice) -> Places:
    """What the cluster is asked for: one worker has a place, and all will compute as it does.

    Raises `UserError` where it has none, or has no dadpo-bench or another one.
    """
    has = ray.cluster_resources()
    any_gpu = has.get("GPU", 0) > 0
    gpus = choice.gpus_per_worker if choice.gpus_per_worker is not None else float(any_gpu)
    wide = choice.gpus_per_training if choice.gpus_per_training is not None else int(any_gpu or gpus > 0)
    cpus = choice.cpus_per_worker
    try:
        probe = ray.remote(num_cpus=cpus, num_gpus=gpus)(_probe).remote()
        there = _could_hold(cpus, gpus)
        grows = not there and bool(choice.address or os.environ.get("RAY_ADDRESS"))
        if grows:
            told = f"no machine has {cpus:g} cores and {gpus:g} GPUs: waiting for one that an autoscaler may start"
            print(f"--engine ray: {told}", file=sys.stderr)
        done, _ = ray.wait([probe], timeout=_START_SECONDS if grows else _PLACE_SECONDS if there else 0)
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
        raise UserError(f"the cluster's machines cannot work: {last_line(error)}; is dadpo-bench there?") from error
    if "DADPO_BENCH_DTYPE" not in os.environ:
        compute_in(dtype)
    needs = Needs(cpus, gpus, str(compute_dtype()).removeprefix("torch."), __version__)
    _check_version(version)
    has = ray.cluster_resources()  # an autoscaler may have started machines
    workers = choice.workers or _fitting(has, cpus, gpus)
    # Where an autoscaler has yet to start machines, as many trainings as those would hold.
    will = {"CPU": max(has.get("CPU", 0), workers * cpus), "GPU": max(has.get("GPU", 0), workers * gpus)}
    return Places(needs, workers, _fitting(will, cpus, wide), wide)


def check_seen(folder: Path) -> None:
    """Raises `UserError` where a machine that is there now does not see this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pin = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    look = ray.remote(num_cpus=0, max_retries=0)(_misses)
    with NamedTemporaryFile(dir=folder, prefix=".seen-") as mark:
        machines = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        looks = [look.options(scheduling_strategy=pin(id, soft=False)).remote(mark.name) for id in machines]
        done, _ = ray.wait(looks, num_returns=len(looks), timeout=_LOOKS_SECONDS)
        blind: list[str] = []
        for one in done:
            with suppress(ray.exceptions.RayError):  # a machine that is lost is no hindrance
                blind += ray.get(one)
    if blind:
        raise UserError(
            f"{folder} is not seen, or not to be written in, on {', '.join(sorted(blind))}: name a folder that all "
            "machines, this one too, see at the same path (--set engine.artefacts=…)"
        )


def as_all(needs: Needs) -> None:
    """This process computes as all the others."""
    _check_version(needs.version)
    compute_in(needs.dtype)
    import torch

    torch.set_num_threads(max(1, int(needs.cpus)))


def last_line(error: BaseException) -> str:
    """What Ray's long stories come to."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


def nothing(*_: Any, **__: Any) -> None:
    """For callbacks that stay with the starting side."""


def _could_hold(cpus: float, gpus: float) -> bool:
    """Whether some machine would have place for a worker if it were idle."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(has.get("CPU", 0) >= cpus and has.get("GPU", 0) >= gpus for has in machines)


def _misses(path: str) -> list[str]:
    """This machine's name, where it does not see that file or cannot write beside it; a network disk may be late."""
    until = time.monotonic() + _LATE_SECONDS
    while not Path(path).exists():
        if time.monotonic() > until:
            return [socket.gethostname()]
        time.sleep(LOOK_SECONDS)
    try:
        with NamedTemporaryFile(dir=Path(path).parent, prefix=".seen-"):
            return []
    except OSError:
        return [socket.gethostname()]


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
