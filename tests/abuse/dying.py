"""`dying.py COMMAND…`: for each line "STAGE TABLE" on stdin the program in a process that kills itself (-9) there.

As soon as a new row of the table is committed in the stage; with "-" for the table as soon as the stage is named.
Prints how each process ended, as `subprocess` numbers it. They are forked from here: importing torch takes longer
than a run of a tiny model.
"""

import importlib
import math
import os
import signal
import sys
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool

from dadpo_bench.cli import main
from dadpo_bench.progress import Reporter
from dadpo_bench.store import judgments
from trainers import checkpoint

HEAVY = ("dadpo_bench.pipeline", "dadpo_bench.cli.result", "trainers.dadpo", "trainers.sft", "judges.likelihood")


def run_and_die(in_stage: str, table: str) -> None:
    """Run the command; come back only where it did not get so far."""
    reached = {"stage": False, "row": False, "commit": False}

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def say(self: Reporter, text: str) -> None:
        reached["stage"] |= text == in_stage
        if reached["stage"] and table == "-":
            die()

    Reporter.say = say  # type: ignore[method-assign]

    @event.listens_for(Engine, "after_cursor_execute")
    def _(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        is_row = statement.startswith(f"INSERT INTO {table} ") and cursor.rowcount > 0
        reached["row"] |= reached["stage"] and is_row

    @event.listens_for(Engine, "commit")
    def _(connection: Any) -> None:
        reached["commit"] |= reached["row"]

    @event.listens_for(Pool, "checkin")  # the first event behind a commit
    def _(*_: Any) -> None:
        if reached["commit"]:
            die()

    main()


if __name__ == "__main__":
    checkpoint.SAVE_SECONDS, checkpoint.SAVE_SHARE = 0, math.inf  # a training's state behind every step
    judgments.BATCH = 1
    for module in (*HEAVY, "transformers.models.llama.modeling_llama"):
        importlib.import_module(module)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run_and_die(*line.split())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
