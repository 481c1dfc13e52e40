"""The process's memory: what is given back between two models, and how much it was at most."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from functools import cache

import psutil
import torch


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library where it is glibc; no other has `malloc_trim`."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None


def release_memory() -> None:
    """Give what nobody holds any more back to the system: between two models, not between two steps."""
    gc.collect()  # an optimiser and its model refer to each other
    if library := _glibc():
        library.malloc_trim(0)  # glibc itself gives back the top of its heap alone
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def resident_bytes() -> int:
    """Memory in use now: the GPU's where there is one, else the process's."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """Memory held at most so far by this process: a GPU's where it computed on one, else what was resident."""
    if torch.cuda.is_available() and (held := torch.cuda.max_memory_allocated()):
        return held
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
