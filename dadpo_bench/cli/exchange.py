"""`dadpo-bench import` and `export`: other programs' files into a store and out of it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dadpo_bench.cli.options import STORE, JsonOption, StoreOption, relative
from dadpo_bench.errors import UserError

_FORMATS = (
    "alpaca-eval-outputs, alpaca-eval-annotations, mt-bench-answers, mt-bench-judgments, arena-hard-answers, "
    "arena-hard-judgments, jsonl"
)

_IMPORT = """
Put other programs' responses and judgments into a store: they stand on its board like what was made here.

Contestants of one task and baseline share a board, whichever file they come from, and when. Stored labels count; the
judge's own words are read again, and what follows from them otherwise is told. All of a call's files or none are kept;
importing them again changes nothing. Judgments that are stored stay: how many files say otherwise is told.

Examples:

  dadpo-bench import alpaca-eval-annotations results/*/weighted_alpaca_eval_gpt4_turbo/annotations.json

  dadpo-bench import alpaca-eval-annotations NullModel.json --rename example=NullModel

  dadpo-bench import mt-bench-judgments question.jsonl model_answer/*.jsonl model_judgment/gpt-4_single.jsonl

  dadpo-bench import arena-hard-judgments *.jsonl */*.jsonl */*/*.jsonl --baseline o3-mini-2025-01-31

  dadpo-bench import jsonl export/general.jsonl --store results/other.sqlite3
"""

_EXPORT = """
Write a store's responses and judgments as other programs read them; `import` reads them back.

Our own lines (jsonl) carry the prompts, every contestant's answers, seed, settings and KL, and what judges said and
when: imported, they give the rows that the store has. Not carried: canaries, and what is known of models and runs
(weights, training, signals, sampling, a panel's members, what judge-eval found). In other programs' files every seed is
a contestant of its own, named dadpo-seed0. Judges of one name show the beginning of their key, which --judge takes.

Examples:

  dadpo-bench export alpaca-eval-annotations --task alpaca_eval_2 --out annotations

  dadpo-bench export mt-bench-judgments --task mt_bench --judge gpt-4

  dadpo-bench export arena-hard-answers --task general --contestant dadpo --store results/reference.sqlite3

  dadpo-bench export jsonl --task general                     (one file)
"""

_SHOWN = 5
"""Remarks that people are shown; --json has all."""


def import_(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of: {_FORMATS}.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Files of that format.")],
    task: Annotated[str | None, typer.Option(help="The task's name, where it is not the files' own.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Whom all are compared with, where the files name several or nobody.")
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Another name for a contestant; may be repeated.")
    ] = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """See `_IMPORT`, which typer shows."""
    from dadpo_bench.counts import counted
    from dadpo_bench.exchange import read, wanted
    from dadpo_bench.exchange.stored import keep
    from dadpo_bench.leaderboard import write_board
    from dadpo_bench.progress import Reporter, aside
    from dadpo_bench.store import open_store

    names = dict(_renaming(pair) for pair in rename or ())
    meant, progress = wanted(task, baseline), aside()
    with progress.running():
        with progress.bar("read", len(files), "files") as bar:
            parcel = read(format, files, meant._replace(told=bar.advance)).renamed(names)
        with closing(open_store(store)) as opened:
            kept = keep(opened, parcel, progress)
            with progress.bar("show", 1, "boards") as bar:
                board = write_board(opened)
                bar.advance()
    if as_json:
        typer.echo(json.dumps({**kept._asdict(), "board": str(board)}, indent=1))
        return
    lines = [
        f"{kept.task}: {counted(kept.prompts, 'prompts')}" + (f", against {kept.baseline}" if kept.baseline else "")
    ]
    lines += [f"  {name}: {counted(count, 'responses')}" for name, count in kept.contestants.items()]
    lines += [f"  judge {name}: {counted(count, 'judgments')}" for name, count in kept.judged.items()]
    lines += [f"  unscored: {counted(kept.unscored, 'judgments')}"] if kept.unscored else []
    if kept.differing:
        lines += [f"  {counted(kept.differing, 'judgments')} unlike the stored ones, which stay"]
    if kept.baseline not in ("", *kept.contestants):
        lines += [f"  no responses of {kept.baseline} among the files"]
    lines += [*kept.remarks[: _SHOWN + 1]]
    if (more := len(kept.remarks) - _SHOWN - 1) > 0:
        lines += [f"and {more:,} more (--json shows all)"]
    reporter = Reporter(Console())
    for line in [*lines, f"board: {relative(board)}" if kept.judged else "not on the board yet: nobody judged them"]:
        reporter.say(line)


def _renaming(pair: str) -> tuple[str, str]:
    old, _, new = pair.partition("=")
    if not old or not new:
        raise UserError(f"--rename {pair}: write it as OLD=NEW")
    return old, new


def export(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of: {_FORMATS}.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("export"),
    task: Annotated[str | None, typer.Option(help="Which task; may be left out where the store has one.")] = None,
    board: Annotated[
        str | None, typer.Option(metavar="TITLE|KEY", help="Which board, where several have that task.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Which judge's words; every one's where left out.")] = None,
    contestant: Annotated[list[str] | None, typer.Option(help="Whom; everybody where left out.")] = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """See `_EXPORT`, which typer shows."""
    from dadpo_bench.exchange import format_named
    from dadpo_bench.exchange.files import write_files
    from dadpo_bench.exchange.stored import gather
    from dadpo_bench.store import open_store

    chosen = format_named(format)
    with closing(open_store(store, create=False)) as opened:
        parcel = gather(opened, task=task, board=board, judge=judge, contestants=contestant or ())
    written = write_files(out, chosen.write(parcel))
    if as_json:
        typer.echo(json.dumps([str(path) for path in written], indent=1))
        return
    for path in written:
        typer.echo(f"wrote {relative(path)}")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import", help=_IMPORT)(import_)
    app.command("export", help=_EXPORT)(export)
