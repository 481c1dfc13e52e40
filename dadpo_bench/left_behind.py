"""What killed processes leave behind: files and folders named after whoever makes them, NAME.HOST@PID[.partial].

Folders of checkpoints may be shared by machines. Of a process elsewhere nothing can be known but that it writes, or
says by `alive` that it is there.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_OWNED = re.compile(r"\.([\w-]+)@(\d+)(\.partial)?$")
_HOST = re.sub(r"[^\w-]", "-", socket.gethostname())
_SILENT, _EVERY = 180.0, 30.0
"""Seconds after which a process elsewhere is taken for dead; between two signs of life."""


def owner() -> str:
    """This process, as a part of a name."""
    return f"{_HOST}@{os.getpid()}"


def left_behind(folder: Path, pattern: str) -> list[Path]:
    """Those of processes that died; what is named otherwise is somebody else's."""
    owned = [(path, _OWNED.search(path.name)) for path in folder.glob(pattern)]
    return [path for path, match in owned if match and _dead(path, match[1], int(match[2]))]


def _dead(path: Path, host: str, pid: int) -> bool:
    if host == _HOST:
        return not psutil.pid_exists(pid)
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > _SILENT
    return False


def let_go(path: Path) -> None:
    """Whoever looks from elsewhere may have it at once."""
    with suppress(OSError):
        os.utime(path, (0, 0))


@contextmanager
def alive(*paths: Path) -> Iterator[None]:
    """Tell whoever looks from elsewhere that these are being made."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(_EVERY):
            for path in paths:
                with suppress(OSError):
                    os.utime(path)

    thread = threading.Thread(target=tell, name="alive", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
