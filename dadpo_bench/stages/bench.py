"""What every stage is given: the store, the engine and the person watching."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from dadpo_bench.engine import Engine
from dadpo_bench.progress import Reporter
from dadpo_bench.store import Store


@dataclass(frozen=True)
class Bench:
    """The tools of a stage."""

    store: Store
    engine: Engine
    reporter: Reporter
    tracker: str | None = None
    """Where else the steps of a training are told, by accelerate's name of it."""
    stopping: Event = field(default_factory=Event)
    """Set where trainings that run side by side are to end."""


@dataclass(frozen=True)
class LocalModel:
    """A model on disk, by content."""

    name: str
    directory: Path
    key: str
    chat_template: str | None = None
