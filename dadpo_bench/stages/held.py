"""Models in a worker's memory: those that the item at hand needs, and no others."""

from __future__ import annotations

import socket
from typing import Any

from dadpo_bench.errors import WorkError
from dadpo_bench.models import Precision, load_model
from dadpo_bench.models.memory import release_memory
from dadpo_bench.stages.bench import LocalModel


class Held:
    """Loads what is asked for and lets go of the rest: items come model by model, so one is loaded once, mostly."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], Any] = {}

    def __call__(self, precision: Precision, *wanted: LocalModel) -> list[Any]:
        """The models' weights, in that format."""
        keys = [(model.key, str(precision)) for model in wanted]
        if gone := self._models.keys() - set(keys):
            for key in gone:
                del self._models[key]
            release_memory()
        for key, model in zip(keys, wanted, strict=True):
            if key not in self._models and not model.directory.is_dir():
                raise WorkError(
                    f"{model.name}: {socket.gethostname()} has no folder {model.directory}; models lie where every "
                    "machine sees them at one path (engine.artefacts, HF_HOME)"
                )
            if key not in self._models:
                self._models[key] = load_model(model.directory, precision)
        return [self._models[key] for key in keys]
