"""`dadpo-bench power`: how many prompts does it take to tell two methods apart?"""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dadpo_bench.cli.options import STORE, JsonOption, StoreOption

if TYPE_CHECKING:
    from dadpo_bench.sample_size import Aim, Board

_EXAMPLES = """
How many prompts tell two methods apart, by how much they differ from prompt to prompt, and what judging costs.

For every two methods on the prompts that they share: the prompts on which an effect of so many points is found, and the
effect that the prompts there are find. It speaks of prompts alone: what training seeds vary by, no prompts take away.

Examples:

  dadpo-bench power --effect 3

  dadpo-bench power --effect 5 --power 0.9 --alpha 0.01 --task general --store results/reference.sqlite3

  dadpo-bench power --effect 3 --judge chat:gpt-4o --json
"""

_SHOWN = 10
_FEW = 30


def power(
    effect: Annotated[
        float,
        typer.Option(min=0, help="Points that matter: of the win rate, or of ratings where there is no baseline."),
    ],
    power: Annotated[float, typer.Option(help="Chance of finding it.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Level of the two-sided test, of one comparison.")] = 0.05,
    store: StoreOption = STORE,
    task: Annotated[str | None, typer.Option(help="One task; all by default.")] = None,
    judge: Annotated[str | None, typer.Option(help="One judge, as the board names it; all by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """See `_EXAMPLES`, which typer shows."""
    from dadpo_bench.progress import aside
    from dadpo_bench.sample_size import Aim, boards
    from dadpo_bench.store import open_store

    aim = Aim(effect, power, alpha)
    reporter = aside(quiet=as_json)
    with closing(open_store(store, create=False)) as opened, reporter.running():
        found = boards(opened, aim, task=task, judge=judge, reporter=reporter)
    if as_json:
        typer.echo(json.dumps([{**aim._asdict(), **board.as_data()} for board in found], indent=1))
        return
    console = Console()
    for board in found:
        _show(console, board, aim)


def _show(console: Console, board: Board, aim: Aim) -> None:
    from dadpo_bench.counts import counted
    from dadpo_bench.leaderboard import number
    from dadpo_bench.tables import print_table

    digits = 1 if board.unit == "points" else 2
    table = Table(title=escape(f"{board.recipe}: {board.task}, judge {board.judge}; {board.unit}"), padding=(0, 0))
    table.add_column("two methods")
    for name in ("prompts", "difference", "deviation", f"prompts for {aim.effect:g}", "detectable"):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in board.pairs[:_SHOWN]:
        table.add_row(
            escape(f"{pair.first}, {pair.second}"),
            f"{pair.prompts:,}",
            number(pair.difference, digits, sign=True),
            number(pair.sd, digits),
            "–" if pair.needed is None else f"{pair.needed:,}",
            number(pair.detectable, digits),
        )
    print_table(console, table)
    lines = []
    if len(board.pairs) > _SHOWN:
        lines.append(f"and {len(board.pairs) - _SHOWN:,} more pairs, which need fewer (--json has all)")
    if board.known:
        pair, cost = board.hardest, board.cost(board.hardest.needed or 0)
        lines.append(
            f"{aim.effect:g} {board.unit} at {100 * aim.power:g} % power, alpha {aim.alpha:g}: "
            f"{counted(cost.prompts, 'prompts')} for any two, {board.median_needed:,} for half of the pairs"
        )
        spent = "no tokens of its judgments are stored" if cost.tokens is None else f"{cost.tokens:,} tokens"
        priced = "no price is known" if cost.usd is None else f"${cost.usd:,.2f}"
        who = f"{counted(board.contestants, 'contestants')} on {counted(cost.prompts, 'prompts')}"
        lines.append(f"judging {who}: {counted(cost.judgments, 'judgments')}, {spent}, {priced}")
        if len(board.pairs) > 1:
            level = aim.alpha / len(board.pairs)
            lines.append(
                f"a board corrects for all {len(board.pairs)} pairs (Holm): at worst count with --alpha {level:.2g}"
            )
        if pair.prompts < _FEW:
            lines.append(f"a deviation over {pair.prompts} prompts is itself a rough figure")
    if len(board.known) < len(board.pairs):
        lines.append("–: never differed, so nothing is known of how much they vary")
    for line in lines:
        console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("power", help=_EXAMPLES)(power)
