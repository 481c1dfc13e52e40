"""`dadpo-bench import` and `export`: other programs' files into a store and out of it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dadpo_bench.cli.options import STORE, JsonOption, StoreOption, relative

_FORMATS = (
    "alpaca-eval-outputs, alpaca-eval-annotations, mt-bench-answers, mt-bench-judgments, arena-hard-answers, "
    "arena-hard-judgments, jsonl"
)


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


def export(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of: {_FORMATS}.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("export"),
    task: Annotated[str | None, typer.Option(help="Which task; may be left out where the store has one.")] = None,
    judge: Annotated[str | None, typer.Option(help="Which judge's words; every one's where left out.")] = None,
    contestant: Annotated[list[str] | None, typer.Option(help="Whom; everybody where left out.")] = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Write a store's responses and verdicts as other programs read them; `import` reads them back.

    Example: dadpo-bench export alpaca-eval-annotations --task alpaca_eval_2 --out annotations
    """
    from dadpo_bench.exchange import format_named
    from dadpo_bench.exchange.files import write_files
    from dadpo_bench.exchange.stored import gather
    from dadpo_bench.store import open_store

    chosen = format_named(format)
    with closing(open_store(store, create=False)) as opened:
        parcel = gather(opened, task=task, judge=judge, contestants=contestant or ())
    written = write_files(out, chosen.write(parcel))
    if as_json:
        typer.echo(json.dumps([str(path) for path in written], indent=1))
        return
    for path in written:
        typer.echo(f"wrote {relative(path)}")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import")(import_)
    app.command("export")(export)
