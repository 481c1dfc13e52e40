"""Ray kept quiet, and to this machine: by what it reads from the environment when it is imported, and beyond it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Of a cluster that is started here: the work is what this machine is for.
    "RAY_worker_niceness": "0",
}


def prepare(*, here: bool) -> None:
    """Set what is not set already: Ray is quiet, and where it is started `here`, on 127.0.0.1."""
    own = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if here else {}  # on Linux too, whatever it is called
    for name, value in (_QUIET | own).items():
        os.environ.setdefault(name, value)


@contextmanager
def unsaid() -> Iterator[None]:
    """What this process's libraries write to stderr within is lost: Ray tells there how quiet it was told to be."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
