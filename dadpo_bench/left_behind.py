"""What killed processes leave behind: files and folders that they named after themselves, NAME.PID[.partial]."""

from __future__ import annotations

import re
from pathlib import Path

import psutil

_OWNED = re.compile(r"\.(\d+)(\.partial)?$")


def left_behind(folder: Path, pattern: str) -> list[Path]:
    """Those of processes that died; what is named otherwise is somebody else's."""
    owned = [(path, _OWNED.search(path.name)) for path in folder.glob(pattern)]
    return [path for path, match in owned if match and not psutil.pid_exists(int(match[1]))]
