"""`dadpo-bench merge`: stores made apart into one."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dadpo_bench.cli.options import JsonOption, relative
from dadpo_bench.counts import counted
from dadpo_bench.errors import UserError

if TYPE_CHECKING:
    from dadpo_bench.merging import Merged

_MERGE = """
Put stores made apart, by an array job say, into one: their rows are united by content key, all of them or none.

Rows that are new are added, and nothing is doubled, however often a store is merged. An answer takes the place of a
judge's failure. Where two stores contradict each other (one response in other words, another verdict, one training with
other weights) nothing is written: each conflict is named with both stores, and the exit code is 2. With --keep-first
the row of --into stays, else that of the store named first, and nothing is taken that leans on the other: no verdict on
words that are not kept. What tells only when, where and how fast a thing was made may differ, and so may log-probs and
KL by as much as rounding explains.

Runs get numbers of their own here. Scores are computed again, for every board that one of the stores had scored, and
the board is written anew. Not merged: what a run is doing just now, and the checkpoints, which lie beside each store in
the folder of its name. Scores need none; a later `run` that misses one trains it again, so copy their contents into the
folder beside --into first, as examples/slurm/array.sh does.

Stores are SQLite files, published ones too, or URLs of databases; those that are merged are only read.

Examples:

  dadpo-bench merge members/*.sqlite3 --into results/merged.sqlite3

  dadpo-bench merge results/mine.sqlite3 --into postgresql://me@db.example.org/team

  dadpo-bench merge a.sqlite3 b.sqlite3 --into c.sqlite3 --json
"""

_SHOWN = 5
"""Conflicts of a table that people are shown; --json has 200."""


def merge(
    stores: Annotated[list[str], typer.Argument(metavar="STORE…", help="Stores to read: SQLite files or URLs.")],
    into: Annotated[
        str, typer.Option(metavar="STORE", help="Store to write, made where it is not there.", show_default=False)
    ],
    keep_first: Annotated[
        bool, typer.Option("--keep-first", help="Of rows that contradict each other keep the first; see above.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """See `_MERGE`, which typer shows."""
    from dadpo_bench.leaderboard import write_board
    from dadpo_bench.merging import merge as unite
    from dadpo_bench.progress import Reporter, aside
    from dadpo_bench.store import open_store

    progress = aside()
    board = None
    with progress.running():
        merged = unite(stores, into, keep_first=keep_first, reporter=progress)
        if merged.written:
            with closing(open_store(into, create=False)) as opened:
                board = write_board(opened)
    if as_json:
        typer.echo(json.dumps({**merged.as_data(), "board": board and str(board)}, indent=1))
    else:
        reporter = Reporter(Console())
        for line in _lines(merged):
            reporter.say(line)
        if board:
            reporter.say(f"board: {relative(board)}")
    if not merged.written:
        by_table = ", ".join(f"{table} {count:,}" for table, count in sorted(merged.counts.contested.items()))
        raise UserError(
            f"{counted(merged.contested, 'conflicts')} ({by_table}), so nothing was written: leave out the store that "
            "is wrong, or take --keep-first, which keeps what --into has, else the store named first"
        )


def _lines(merged: Merged) -> list[str]:
    counts = merged.counts
    lines = []
    for table, count in sorted(counts.contested.items()):
        lines += [str(conflict) for conflict in merged.conflicts if conflict.table == table][:_SHOWN]
        if (more := count - _SHOWN) > 0:
            lines.append(f"and {more:,} more of {table.replace('_', ' ')}")
    if not merged.written:
        return lines
    for table in sorted({*counts.added, *counts.known, *counts.settled}):
        if told := [
            f"{count:,} {what}"
            for count, what in (
                (counts.added[table], "new"),
                (counts.settled[table], "in place of a failure" if table in ("ratings", "verdicts") else "completed"),
                (counts.known[table], "there already"),
                (counts.contested[table], "contradicted, the first kept"),
                (counts.leaning[table], "left out with what they lean on"),
            )
            if count
        ]:
            lines.append(f"  {table.replace('_', ' ')}: {', '.join(told)}")
    return lines


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("merge", help=_MERGE)(merge)
