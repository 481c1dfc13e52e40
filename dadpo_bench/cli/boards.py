"""`dadpo-bench leaderboard` and `check`: regenerate a board, and prove that nothing got worse."""

from __future__ import annotations

import difflib
import json
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dadpo_bench.cli.options import STORE, JsonOption, StoreOption, relative
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.places import REFERENCE_STORE

if TYPE_CHECKING:
    from dadpo_bench.store import Store


class Format(StrEnum):
    """How a board is given."""

    md = "md"
    json = "json"
    csv = "csv"


def leaderboard(
    store: StoreOption = STORE,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 with a diff if the board would change.")] = False,
    format: Annotated[
        Format | None, typer.Option(help="Print it instead of writing the board's file: Markdown, or rows.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="This task's rows alone; printed.")] = None,
    judge: Annotated[str | None, typer.Option(help="This judge's sections alone; printed.")] = None,
    per_seed: Annotated[bool, typer.Option("--per-seed", help="A row for each training seed; printed.")] = False,
    by_category: Annotated[bool, typer.Option("--by-category", help="Rows of each category too; printed.")] = False,
    length_control: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Coefficients in AlpacaEval's form, instead of a fit; printed.")
    ] = None,
    fit_lengths: Annotated[
        bool,
        typer.Option(
            "--length-controlled/--no-length-controlled",
            help="Fit length control; half a minute where there are a million verdicts; printed.",
        ),
    ] = True,
    difficulty: Annotated[
        Path | None, typer.Option(metavar="JSON", help="With them: each instruction's difficulty.")
    ] = None,
    style: Annotated[
        bool, typer.Option("--style", help="Ratings at equal length and markdown too, as Arena-Hard's; printed.")
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="JUDGE|FILE",
            help="A stronger judge of this store, or labelled pairs as `judge-eval --pairs` reads: win rates corrected "
            "by them; printed.",
        ),
    ] = None,
) -> None:
    """Regenerate the board of a store; the same store gives the same bytes.

    Examples:

      dadpo-bench leaderboard

      dadpo-bench leaderboard --store results/reference.sqlite3 --check

      dadpo-bench leaderboard --task general --by-category

      dadpo-bench leaderboard --format json | jq '.[] | select(.task == "general")'

      dadpo-bench leaderboard --format csv --length-control coefficients.csv --difficulty difficulty.json

      dadpo-bench leaderboard --labels chat:gpt-4o
    """
    from dadpo_bench.leaderboard import EVERYTHING, View, render, sections, write_board
    from dadpo_bench.leaderboard.rows import as_csv
    from dadpo_bench.lenses import Lenses
    from dadpo_bench.progress import aside
    from dadpo_bench.scores import refresh_scores
    from dadpo_bench.store import open_store

    reporter = aside()
    if (length_control is None) != (difficulty is None):
        raise UserError("--length-control and --difficulty go together")
    with closing(open_store(store, create=False)) as opened, opened.read() as session:
        lens = Lenses.made(session, length_control, difficulty, labels, style=style)
        view = View(task, judge, per_seed, by_category, lens, fit_lengths)
        if check and (view != EVERYTHING or format is not None):
            raise UserError("--check compares the board's file: it takes --store alone")
        if format is not None or view != EVERYTHING:
            with reporter.running():
                if format in (Format.json, Format.csv):
                    rows = [row for section in sections(session, view) for row in section.rows]
                    text = json.dumps(rows, indent=1) + "\n" if format is Format.json else as_csv(rows)
                else:
                    text = render(opened, view)
            if lens is not None:
                lens.check()
            typer.echo(text, nl=False)
            return
    with closing(open_store(store, create=False)) as opened, reporter.running():
        if check:
            _check_board(opened)
            return
        if not opened.published:
            refresh_scores(opened)
        board = write_board(opened)
    typer.echo(f"wrote {relative(board)}")


def _check_board(opened: Store) -> None:
    """Raises `typer.Exit` with a diff where the board's file is another."""
    from dadpo_bench.leaderboard import render

    text = render(opened)
    before = opened.board.read_text(encoding="utf-8") if opened.board.is_file() else ""
    name = relative(opened.board)
    if text != before:
        diff = difflib.unified_diff(before.splitlines(True), text.splitlines(True), name, f"{name} (regenerated)")
        typer.echo("".join(diff), nl=False)
        raise typer.Exit(1)
    typer.echo(f"{name} is up to date")


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
    from dadpo_bench.progress import aside
    from dadpo_bench.regression import compare_stores, show
    from dadpo_bench.store import open_store

    try:
        mine = open_store(store, create=False)
        if against == str(REFERENCE_STORE) and not REFERENCE_STORE.is_file():
            raise UserError(f"no {REFERENCE_STORE} here: run in the project's folder, or name a store with --against")
        theirs = open_store(against, create=False)
        reporter = aside(quiet=as_json)
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


def agreement(store: StoreOption = STORE, as_json: JsonOption = False) -> None:
    """How far a store's judges agree on what several of them judged: shares and Cohen's κ, with and without ties.

    Example: dadpo-bench agreement --store results/local.sqlite3
    """
    from rich.markup import escape
    from rich.table import Table

    from dadpo_bench.judging.stored_agreement import stored_agreement
    from dadpo_bench.leaderboard import number
    from dadpo_bench.store import open_store
    from dadpo_bench.tables import print_table

    with closing(open_store(store, create=False)) as opened, opened.read() as session:
        found = stored_agreement(session)
    if as_json:
        typer.echo(json.dumps([one.as_data() for one in found], indent=1))
        return
    if not found:
        raise UserError("no two judges of this store judged the same: run again with another --judge")
    table = Table(title="per cent of comparisons with the same side, 95 % interval", padding=(0, 0))
    table.add_column("judges")
    for name in ("agree", "without ties", "κ", "κ without ties", "comparisons"):
        table.add_column(name, no_wrap=True, justify="right")
    for one in found:
        both = [one.agreement, one.agreement_without_ties]
        shares = [f"{s.share:.1f} ({s.low:.0f} to {s.high:.0f})" if s else "–" for s in both]
        kappas = [number(one.cohen_kappa, 2), number(one.cohen_kappa_without_ties, 2)]
        table.add_row(escape(f"{one.board}: {one.first}, {one.second}"), *shares, *kappas, str(one.comparisons))
    print_table(Console(), table)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("leaderboard")(leaderboard)
    app.command("check")(check)
    app.command("agreement")(agreement)
