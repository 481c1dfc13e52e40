"""`dadpo-bench leaderboard` and `check`: regenerate a board, and prove that nothing got worse."""

from __future__ import annotations

import difflib
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dadpo_bench.cli.options import STORE, JsonOption, StoreOption, relative
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.places import REFERENCE_STORE


class Format(StrEnum):
    """How a board is given."""

    markdown = "markdown"
    json = "json"


def leaderboard(
    store: StoreOption = STORE,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 with a diff if the board would change.")] = False,
    format: Annotated[Format, typer.Option(help="`json` prints rows instead of writing the board.")] = Format.markdown,
    per_seed: Annotated[
        bool, typer.Option("--per-seed", help="Print the board with a row for each training seed; writes nothing.")
    ] = False,
) -> None:
    """Regenerate the board of a store; the same store gives the same bytes.

    Examples:

      dadpo-bench leaderboard

      dadpo-bench leaderboard --store results/reference.sqlite3 --check

      dadpo-bench leaderboard --per-seed

      dadpo-bench leaderboard --format json | jq '.[] | select(.task == "general")'
    """
    from dadpo_bench.leaderboard import render, sections, write_board
    from dadpo_bench.scores import refresh_scores
    from dadpo_bench.store import open_store

    if check and (per_seed or format is Format.json):
        raise UserError("--check compares the board's file: leave out --per-seed and --format json")
    opened = open_store(store, create=False)
    if format is Format.json:
        with opened.read() as session:
            rows = [row for section in sections(session, per_seed=per_seed) for row in section.rows]
        typer.echo(json.dumps(rows, indent=1))
    elif per_seed:
        typer.echo(render(opened, per_seed=True), nl=False)
    elif check:
        text = render(opened)
        before = opened.board.read_text(encoding="utf-8") if opened.board.is_file() else ""
        if text != before:
            name = relative(opened.board)
            diff = difflib.unified_diff(before.splitlines(True), text.splitlines(True), name, f"{name} (regenerated)")
            typer.echo("".join(diff), nl=False)
            raise typer.Exit(1)
        typer.echo(f"{relative(opened.board)} is up to date")
    else:
        if not opened.published:
            refresh_scores(opened)
        typer.echo(f"wrote {relative(write_board(opened))}")
    opened.close()


def check(
    store: StoreOption = STORE,
    against: Annotated[str, typer.Option(help="Store to compare with.")] = str(REFERENCE_STORE),
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Level of the two-sided test, over all rows.")] = 0.05,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE.xml", help="Write JUnit XML too: a case for each row.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell rows that got better, worse, or cannot be told apart; exit 1 only for a drop that the data can prove.

    Proven is what has p under --alpha (paired by prompt, Holm over all rows) and a 95 % interval, over prompts and
    training seeds, on one side of 0. Boards of imported contestants are compared too, ratings without a baseline by
    their means. What cannot be compared exits 2.

    Examples:

      dadpo-bench check --store results/local.sqlite3 --against results/reference.sqlite3

      dadpo-bench check --against results/committed.sqlite3 --junit check.xml
    """
    from dadpo_bench.junit import write_junit
    from dadpo_bench.progress import Reporter
    from dadpo_bench.regression import compare_stores, show
    from dadpo_bench.store import open_store

    try:
        mine = open_store(store, create=False)
        if against == str(REFERENCE_STORE) and not REFERENCE_STORE.is_file():
            raise UserError(f"no {REFERENCE_STORE} here: run in the project's folder, or name a store with --against")
        theirs = open_store(against, create=False)
        errors = Console(stderr=True)
        reporter = Reporter(errors, quiet=as_json or not errors.is_terminal)
        with reporter.running():
            found = compare_stores(mine, theirs, alpha, reporter)
        if junit is not None:
            write_junit(junit, found)
    except (WorkError, OSError) as error:  # by 1 it says that a drop is proven
        raise UserError(str(error)) from error
    if as_json:
        rows = [row.as_data() for row in found.rows]
        typer.echo(
            json.dumps(
                {"rows": rows, "not_compared": list(map(str, found.new)), "gone": list(map(str, found.gone))}, indent=1
            )
        )
    else:
        show(Console(), found, alpha)
    if any(row.dropped for row in found.rows):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("leaderboard")(leaderboard)
    app.command("check")(check)
