"""Safetensors files that are either whole or as good as absent: renamed into place, with a sha256 of what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dadpo_bench.left_behind import left_behind, owner


def write(tensors: dict[str, Tensor], path: Path) -> None:
    """Write beside `path` and rename; what a killed process left half-written in the folder is cleared away."""
    for left in left_behind(path.parent, ".*.partial"):
        left.unlink(missing_ok=True)
    scratch = path.with_name(f".{path.name}.{owner()}.partial")
    try:
        save_file(tensors, scratch, {"sha256": _digest(tensors)})
        scratch.rename(path)
    finally:
        scratch.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Tensor] | None:
    """The tensors, mapped into memory; None where there is no file, or not the one that was written."""
    with suppress(FileNotFoundError, SafetensorError), safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping, only keys()
        if (file.metadata() or {}).get("sha256") == _digest(tensors):
            return tensors
    return None


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for _, tensor in sorted(tensors.items()):
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
