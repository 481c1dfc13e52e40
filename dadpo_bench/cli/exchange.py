"""`dadpo-bench import` and `export`: other programs' files into a store and out of it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dadpo_bench.cli.options import STORE, JsonOption, StoreOption

_FORMATS = "alpaca-eval-annotations"


def import_(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of: {_FORMATS}.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Files of that format.")],
    task: Annotated[str | None, typer.Option(help="The task's name, where the format does not tell it.")] = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Put other programs' responses and verdicts into a store: they stand on its board like what was made here.

    Examples:

      dadpo-bench import alpaca-eval-annotations results/claude-2/weighted_alpaca_eval_gpt4_turbo/annotations.json
    """
    from dadpo_bench.exchange import Wanted, format_named
    from dadpo_bench.exchange.stored import keep
    from dadpo_bench.leaderboard import write_board
    from dadpo_bench.store import open_store

    parcel = format_named(format).read(files, Wanted(task=task))
    with closing(open_store(store)) as opened:
        kept = keep(opened, parcel)
        board = write_board(opened)
    if as_json:
        typer.echo(json.dumps({**kept._asdict(), "board": str(board)}, indent=1))
        return
    console = Console()
    lines = [f"task {kept.task}: {kept.prompts} prompts" + (f", against {kept.baseline}" if kept.baseline else "")]
    lines += [f"  {name}: {count} responses" for name, count in kept.contestants.items()]
    lines += [f"  judge {name}: {count} judgments" for name, count in kept.judged.items()]
    lines += [f"  unscored: {kept.unscored}"] if kept.unscored else []
    for line in [*lines, *kept.remarks, f"board: {board}"]:
        console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import")(import_)
