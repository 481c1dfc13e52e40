"""The process's memory: kept for the next step, given back between models.

By default glibc returns every large tensor to the kernel as it is freed and faults its pages in anew for the
next one: a third of a training step on the CPU (`benchmarks/allocator.py`).
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from functools import cache

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library where it is glibc; other allocators (musl, macOS, Windows) have no such settings."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


@cache
def keep_freed_memory() -> None:
    """From now on, freed tensors' pages stay with the process for the next tensor. Does nothing without glibc."""
    if library := _glibc():
        library.mallopt(_MMAP_THRESHOLD, _NEVER)
        library.mallopt(_TRIM_THRESHOLD, _NEVER)


def release_memory() -> None:
    """Give what nobody holds any more back to the system: between two models, not between two steps."""
    gc.collect()  # an optimiser and its model refer to each other
    if library := _glibc():
        library.malloc_trim(0)
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def peak_bytes() -> int:
    """The process's peak resident memory so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
