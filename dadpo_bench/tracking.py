"""Experiment trackers, TensorBoard or Weights & Biases among them, through accelerate's; fed what the store is fed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dadpo_bench.errors import UserError
from dadpo_bench.registry import unknown
from dadpo_bench.types import JsonObject

PROJECT = "dadpo-bench"


def check_tracker(name: str) -> None:
    """Raises `UserError` for a tracker that accelerate does not know, or whose package is not installed."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if name not in LOGGER_TYPE_TO_CLASS:
        raise UserError(f"--log-with: {unknown('tracker', name, sorted(LOGGER_TYPE_TO_CLASS))}")
    if name not in map(str, get_available_trackers()):
        raise UserError(f"--log-with {name}: not installed; pip install {name}")


@contextmanager
def tracked(
    name: str | None, label: str, key: str, settings: JsonObject, folder: Path
) -> Iterator[Callable[[int, JsonObject], None]]:
    """Within, give (step, metrics) to the tracker; with no name they go nowhere.

    `label` is what a person reads, `key` what tells one training from all others: a training that goes on behind
    an interruption goes on in its tracker too, where that can.
    """
    if name is None:
        yield lambda step, metrics: None
        return
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # trackers ask it which process they are in
    kind = LOGGER_TYPE_TO_CLASS[name]
    if name == "wandb":
        tracker = kind(PROJECT, name=label, id=key, resume="allow", dir=str(folder))
    elif kind.requires_logging_directory:
        tracker = kind(f"{label}-{key[:8]}", logging_dir=str(folder))
    else:
        tracker = kind(PROJECT)
    tracker.start()
    plain = {k: v if isinstance(v, str | int | float) else str(v) for k, v in settings.items()}
    tracker.store_init_configuration(plain)
    try:
        yield lambda step, metrics: tracker.log(dict(metrics), step=step)
    finally:
        tracker.finish()
