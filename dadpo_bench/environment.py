"""Where a run took place: stored with it, so that two runs can be told apart."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("dadpo-bench", "torch", "transformers", "accelerate", "tokenizers", "numpy", "openai")


def environment() -> dict[str, Any]:
    """Versions, device, number format and code revision; nothing that names a person or a path."""
    import torch

    from dadpo_bench.models import device, training

    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: _version(name) for name in _PACKAGES},
        "device": device().type if device().type == "cpu" else torch.cuda.get_device_name(),
        "cores": os.cpu_count(),
        "precision": str(training()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "code": _revision(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The checkout's commit, `-dirty` where tracked files differ from it; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
