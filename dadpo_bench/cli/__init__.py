"""The command line: one file a group of commands. Importing it imports no torch."""

import os

from dadpo_bench.cli import boards, db, judge_eval, listing, plan, run
from dadpo_bench.cli.app import app

__all__ = ["app", "main"]

for commands in (run, plan, judge_eval, listing, boards, db):
    commands.register(app)


def main() -> None:
    """Entry point of the `dadpo-bench` command."""
    # Tokenizers warn about forks that never happen here; the hub's client draws its own bars.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    app()
