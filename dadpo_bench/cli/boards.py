"""`dadpo-bench leaderboard` and `check`: regenerate a board, and prove that nothing got worse."""

from __future__ import annotations

import difflib
import json
from enum import StrEnum
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
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Level of the one-sided test, over all rows.")] = 0.05,
    as_json: JsonOption = False,
) -> None:
    """Exit 1 only for a drop that the data can prove: one-sided, clustered by prompt, Holm over the rows.

    The 95 % interval, over prompts and training seeds, must lie below 0 as well. What cannot be compared exits 2.

    Example: dadpo-bench check --store results/local.sqlite3 --against results/reference.sqlite3
    """
    from dadpo_bench.regression import compare_stores, show
    from dadpo_bench.store import open_store

    try:
        mine = open_store(store, create=False)
        if against == str(REFERENCE_STORE) and not REFERENCE_STORE.is_file():
            raise UserError(f"no {REFERENCE_STORE} here: run in the project's folder, or name a store with --against")
        theirs = open_store(against, create=False)
        found, alone = compare_stores(mine, theirs, alpha)
    except (WorkError, OSError) as error:  # by 1 it says that a drop is proven
        raise UserError(str(error)) from error
    if as_json:
        typer.echo(json.dumps({"rows": [f._asdict() for f in found], "not_compared": alone}, indent=1))
    else:
        show(Console(), found, alone, alpha)
    if any(f.dropped for f in found):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("leaderboard")(leaderboard)
    app.command("check")(check)
