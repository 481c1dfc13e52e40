"""`dadpo-bench comparisons`: what was answered and what the judge said, side by side in the terminal."""

from __future__ import annotations

import json
from contextlib import closing
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dadpo_bench.cli.options import STORE, JsonOption, StoreOption
from dadpo_bench.errors import UserError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dadpo_bench.report.comparisons import Comparison, Details, Said

_EXAMPLES = """
Show comparisons: the conversation, both responses side by side, and what the judge said of them in both orders.

Each has a key that stays the same: `--key` shows that one again, and the report's address of it ends in it.

Examples:

  dadpo-bench comparisons --method dadpo --outcome loss --limit 5

  dadpo-bench comparisons --task general --flipped --store results/reference.sqlite3

  dadpo-bench comparisons --key e391dde94ad1 --json
"""


def comparisons(
    method: Annotated[
        str | None, typer.Option("--method", "--contestant", metavar="NAME", help="Whose, as the board calls it.")
    ] = None,
    outcome: Annotated[str | None, typer.Option(help="win, tie, loss, unscored or rated, as the contestant's.")] = None,
    task: Annotated[str | None, typer.Option(help="One task; all by default.")] = None,
    category: Annotated[str | None, typer.Option(help="One category of prompts.")] = None,
    judge: Annotated[str | None, typer.Option(help="One judge, as the board names it.")] = None,
    seed: Annotated[int | None, typer.Option(help="One training seed.")] = None,
    flipped: Annotated[
        bool, typer.Option("--flipped", help="Only where the verdict changed with the order shown.")
    ] = False,
    key: Annotated[str | None, typer.Option(help="One comparison, or those whose keys begin so.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 5,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """See `_EXAMPLES`, which typer shows."""
    from dadpo_bench.history.values import finite
    from dadpo_bench.report.comparisons import OUTCOMES, details_of
    from dadpo_bench.store import open_store

    with closing(open_store(store, create=False)) as opened, opened.read() as session:
        every, names = _all(session)
        if not every:
            raise UserError(f"{opened.name} has no judged comparison: `dadpo-bench run dadpo` makes some")
        wanted = {
            "contestant": method,
            "outcome": outcome,
            "task": task,
            "category": category,
            "judge": judge,
            "seed": seed,
        }
        known: dict[str, list[Any]] = {
            "contestant": [c.contestant for c in every],
            "outcome": list(OUTCOMES),
            "task": [names[c.task_key] for c in every],
            "category": [c.category for c in every],
            "judge": [names[c.judge_key] for c in every],
            "seed": [c.seed for c in every],
        }
        for name, value in wanted.items():
            _check(name, value, known[name])
        known["outcome"] = [c.outcome for c in every]
        found = [
            c
            for place, c in enumerate(every)
            if all(value in (None, known[name][place]) for name, value in wanted.items())
            and (not flipped or c.flipped)
            and c.key.startswith(key or "")
        ]
        if key and not found:
            raise UserError(f"{opened.name} has no comparison whose key begins with '{key}' among those asked for")
        shown = list(islice(found, limit))
        details = details_of(session, shown)
    if as_json:
        typer.echo(json.dumps(finite([_data(c, details, names) for c in shown]), indent=1))
        return
    console = Console()
    for c in shown:
        console.print(_shown(c, details, names))
    left = len(found) - len(shown)
    console.print(
        f"{len(shown)} of {len(found):,}" + (f"; --limit shows more of the other {left:,}" if left else ""),
        highlight=False,
    )


def _all(session: Session) -> tuple[list[Comparison], dict[str, str]]:
    """Every comparison of a store, and the names of tasks and judges by their keys."""
    from dadpo_bench.judging.judgments import told_apart
    from dadpo_bench.panels import panels
    from dadpo_bench.report.comparisons import comparisons_of
    from dadpo_bench.store import scored_boards

    found: list[Comparison] = []
    names: dict[str, str] = {}
    boards = scored_boards(session)
    judges = list({judge.key: judge for _, judge in boards}.values())
    names |= {judge.key: name for judge, name in zip(judges, told_apart(judges), strict=True)}
    for protocol, judge in boards:
        for panel in panels(session, protocol.key, judge.key):
            names[panel.task.key] = panel.task.name
            found += comparisons_of(panel, protocol.key)
    return found, names


def _check(name: str, value: Any, known: list[Any]) -> None:
    from dadpo_bench.registry import unknown

    if value is not None and value not in known:
        raise UserError(unknown(name, str(value), sorted({str(one) for one in known if one not in ("", None)})))


def _data(c: Comparison, details: Details, names: dict[str, str]) -> dict[str, Any]:
    prompt = details.prompts[c.prompt_key]
    return {
        "key": c.key,
        "task": names[c.task_key],
        "category": c.category,
        "judge": names[c.judge_key],
        "contestant": c.contestant,
        "seed": c.seed,
        "baseline": c.baseline,
        "outcome": c.outcome,
        "worth": c.worth,
        "flipped": c.flipped,
        "length_ratio": c.length_ratio,
        "system": prompt.system,
        "turns": prompt.turns,
        "reference": prompt.reference,
        "response": _texts(details, c.ours),
        "response_seconds": _seconds(details, c.ours),
        "baseline_response": _texts(details, c.theirs),
        "baseline_response_seconds": _seconds(details, c.theirs),
        "said": [said.as_data() for said in details.said[c.key]],
    }


def _texts(details: Details, key: str) -> list[str] | None:
    return [reply["text"] for reply in details.responses[key].replies] if key in details.responses else None


def _seconds(details: Details, key: str) -> float | None:
    return details.responses[key].seconds if key in details.responses else None


def _taken(details: Details, key: str) -> str:
    seconds = _seconds(details, key)
    return f", {seconds:.1f} s" if isinstance(seconds, float) else ""


_STYLES = {"win": "green", "loss": "red", "tie": "yellow"}


def _shown(c: Comparison, details: Details, names: dict[str, str]) -> RenderableType:
    from dadpo_bench.report.text import visible

    ours, theirs = (_texts(details, key) or [] for key in (c.ours, c.theirs))
    prompt = details.prompts[c.prompt_key]
    parts: list[RenderableType] = [Text(f"system: {visible(prompt.system)}\n", style="dim")] if prompt.system else []
    who = visible(c.contestant) + ("" if c.seed is None else f", seed {c.seed}") + _taken(details, c.ours)
    for turn, mine, other in zip_longest(prompt.turns, ours, theirs):
        parts.append(Text(visible(turn or ""), overflow="fold"))
        sides = Table(expand=True, show_lines=False)
        sides.add_column(Text(who), ratio=1, overflow="fold")
        cells = [_reply(mine)]
        if c.baseline:
            sides.add_column(
                Text(f"{visible(c.baseline)} (baseline)" + _taken(details, c.theirs)), ratio=1, overflow="fold"
            )
            cells.append(_reply(other))
        sides.add_row(*cells)
        parts.append(sides)
    parts += [_judged(said) for said in details.said[c.key]]
    title = Text.assemble(
        f"{c.key}  {visible(names[c.task_key])}" + (f", {visible(c.category)}" if c.category else ""),
        "  ",
        (c.outcome, _STYLES.get(c.outcome, "")),
        "  flipped" if c.flipped else "",
    )
    return Panel(Group(*parts), title=title, title_align="left", subtitle=Text(f"judge {visible(names[c.judge_key])}"))


def _reply(text: str | None) -> Text:
    from dadpo_bench.report.text import visible

    return Text(visible(text), overflow="fold") if text is not None else Text("no response", style="dim")


def _judged(said: Said) -> Text:
    from dadpo_bench.report.comparisons import ORDERS
    from dadpo_bench.report.text import visible

    value = "" if said.value is None else f"{'preference' if said.outcome else 'rating'} {said.value:.4g}"
    reason = f"unscored: {said.reason}" if said.reason else ""
    used = f"{said.tokens:,} tokens" if said.tokens else ""
    seconds = f"{said.seconds:.1f} s" if said.seconds else ""
    head = " · ".join(part for part in (ORDERS[said.about], said.outcome, value, reason, used, seconds) if part)
    return Text.assemble((visible(head), "bold"), "\n" + visible(said.raw) if said.raw else "", overflow="fold")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("comparisons", help=_EXAMPLES)(comparisons)
