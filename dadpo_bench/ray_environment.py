"""What Ray reads from the environment when it is imported. What is set already stays."""

import os
from pathlib import Path

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Of a cluster that is started here: the work is what this machine is for.
    "RAY_worker_niceness": "0",
}
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def prepare(*, here: bool) -> None:
    """Keep Ray quiet, and where it is started `here`, on 127.0.0.1; a token is sent to clusters that ask for one."""
    own = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if here else {}  # on Linux too, whatever it is called
    for name, value in (_QUIET | own).items():
        os.environ.setdefault(name, value)
    if any(map(os.environ.get, _TOKENS)) or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
