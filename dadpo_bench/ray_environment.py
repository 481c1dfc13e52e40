"""What Ray reads from the environment when it is imported. What is set already stays."""

import os

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Of a cluster that is started here: the work is what this machine is for.
    "RAY_worker_niceness": "0",
}


def prepare(*, here: bool) -> None:
    """Keep Ray quiet, and where it is started `here`, on 127.0.0.1."""
    own = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if here else {}  # on Linux too, whatever it is called
    for name, value in (_QUIET | own).items():
        os.environ.setdefault(name, value)
