"""The command line: one file a group of commands. Importing it imports no torch."""

import os
import sys

from dadpo_bench.cli import (
    boards,
    comparisons,
    contamination,
    db,
    evaluate,
    exchange,
    judge_eval,
    listing,
    merge,
    plan,
    power,
    report,
    run,
    runs,
    view,
)
from dadpo_bench.cli.app import app

__all__ = ["app", "main"]

NOBODY_READS = 141
"""Exit code where whoever read the output has gone, as of `… | head -1`: what a shell says of SIGPIPE."""

_GROUPS = (
    run,
    evaluate,
    plan,
    judge_eval,
    listing,
    contamination,
    boards,
    comparisons,
    report,
    view,
    runs,
    power,
    exchange,
    merge,
    db,
)

for commands in _GROUPS:
    commands.register(app)


def main() -> None:
    """Entry point of the `dadpo-bench` command."""
    # Tokenizers warn about forks that never happen here; the hub's client draws its own bars.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except SystemExit as end:  # both typer and rich answer a broken pipe by this
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # what they still hold is flushed at the end
            os.dup2(nowhere, stream.fileno())
        sys.exit(NOBODY_READS)
