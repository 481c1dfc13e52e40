"""`check`: has a stored result got worse by more than chance? One-sided, paired by prompt, Holm-corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench import scoring
from dadpo_bench.counts import counted
from dadpo_bench.errors import UserError
from dadpo_bench.leaderboard import number
from dadpo_bench.panels import DRAWS, SEED, panels
from dadpo_bench.scoring.outcomes import Floats
from dadpo_bench.store import Store, schema
from dadpo_bench.tables import print_table
from dadpo_bench.types import content_key


class _Row(NamedTuple):
    """A contestant's outcomes on one task by one judge."""

    place: tuple[str, ...]
    """Keys of protocol, task and judge (but for its arithmetic), and the contestant's name: equal for two stores."""
    settings: Mapping[str, Any]
    judge_key: str
    shown: tuple[str, str, str, str]
    """Recipe, judge, task and contestant as a board names them."""
    outcomes: dict[str, Floats]
    """(seeds,) outcomes of every prompt that was scored under some seed."""


class Compared(NamedTuple):
    """One row that both stores have."""

    recipe: str
    judge: str
    task: str
    contestant: str
    prompts: int
    seeds_before: int
    seeds_after: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    dropped: bool
    """Whether p (Holm) is under the level asked for and the interval, which knows of seeds, lies below 0."""


def compare_stores(new: Store, old: Store, alpha: float) -> tuple[list[Compared], list[str]]:
    """Every row that both stores have, paired by prompt; and the new rows that the old store does not have.

    Rows belong together by content: protocol, prompts, judge, contestant and settings. Raises `UserError` where
    the stores share no row.
    """
    stored = _rows(old)
    raw: list[tuple[_Row, Floats, Floats, scoring.Difference]] = []
    alone: list[str] = []
    for row in _rows(new):
        partner = _partner(row, stored)
        found = None
        if partner is not None:
            prompts = [p for p in partner.outcomes if p in row.outcomes]
            after, before = (np.stack([side.outcomes[p] for p in prompts], 1) for side in (row, partner))
            counts = scoring.bootstrap_counts(len(prompts), DRAWS, SEED)
            found = scoring.paired_difference(after, before, counts, seed=SEED, alternative="less")
        if found is None:
            alone.append(" / ".join(row.shown))
        else:
            raw.append((row, before, after, found))
    if not raw:
        raise UserError(
            f"{new.name} and {old.name} share no row: equal models, prompts, dSFT settings, judge and method needed"
        )
    corrected = scoring.holm([found.p_value for *_, found in raw])
    compared = [
        Compared(
            *row.shown,
            prompts=found.prompts,
            seeds_before=before.shape[0],
            seeds_after=after.shape[0],
            before=_mean(before),
            after=_mean(after),
            difference=found.estimate,
            low=found.low,
            high=found.high,
            p_value=found.p_value,
            p_holm=p,
            dropped=p < alpha and found.high < 0,
        )
        for (row, before, after, found), p in zip(raw, corrected, strict=True)
    ]
    return compared, alone


def _partner(row: _Row, stored: Sequence[_Row]) -> _Row | None:
    """The stored row of the same experiment, preferably by a judge of the same arithmetic too."""

    def agree(other: _Row) -> bool:
        # A setting that only one side knows of came with a later version, at a default that changes nothing.
        common = row.settings.keys() & other.settings.keys()
        return row.place == other.place and all(row.settings[k] == other.settings[k] for k in common)

    fitting = [other for other in stored if agree(other) and other.outcomes.keys() & row.outcomes.keys()]
    return min(fitting, key=lambda other: other.judge_key != row.judge_key, default=None)


def _mean(outcomes: Floats) -> float:
    """(seeds, prompts) → per cent, as the board's win rate."""
    return 100 * float(np.nanmean(scoring.nanmean(outcomes, 0)))


def _rows(store: Store) -> list[_Row]:
    found = []
    with store.read() as session:
        for protocol, judge in _scored(session):
            identity = _portable(judge.identity)
            name = "" if "panel" in identity else judge.name  # a panel's names its members in the order asked for
            for panel in panels(session, protocol.key, judge.key):
                for entrant in panel.entrants:
                    if entrant.kind not in ("method", "student"):
                        continue
                    outcomes = scoring.prompt_outcomes(panel.orders(entrant))
                    given = {p: o for p, o in zip(panel.prompts, outcomes.T, strict=True) if not np.isnan(o).all()}
                    first = entrant.contestants[0]
                    if given:
                        place = (protocol.key, panel.task.key, content_key(name, identity), first.name)
                        shown = (protocol.name, judge.name, panel.task.name, entrant.label)
                        found.append(_Row(place, first.settings, judge.key, shown, given))
    return found


def _portable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A judge's identity on any machine: without the number format, that of a panel's members included."""
    kept = {name: value for name, value in identity.items() if name != "precision"}
    if "panel" in kept:
        kept["panel"] = sorted(([entry, _portable(member)] for entry, member in kept["panel"]), key=content_key)
    return kept


def _scored(session: Session) -> list[tuple[schema.Protocol, schema.Judge]]:
    query = select(schema.Score.protocol_key, schema.Score.judge_key).distinct()
    return [
        (session.get_one(schema.Protocol, protocol), session.get_one(schema.Judge, judge))
        for protocol, judge in session.execute(query)
    ]


def show(console: Console, found: Sequence[Compared], alone: Sequence[str], alpha: float) -> None:
    """The table, what was left out of it, and the verdict in words."""
    judges = sorted({c.judge for c in found})
    table = Table(title=escape(f"win rate, %, before → after; judge {', '.join(judges)}"), padding=(0, 0))
    table.add_column("task, contestant")
    for name in ("seeds", "before → after", "difference (95 %)", "p (Holm)"):
        table.add_column(name, no_wrap=True)
    for c in found:
        table.add_row(
            escape(f"{c.task}, {c.contestant}" + (f", {c.judge}" if len(judges) > 1 else "")),
            f"{c.seeds_before} → {c.seeds_after}",
            f"{number(c.before)} → {number(c.after)}",
            f"{number(c.difference, sign=True)} ({number(c.low, sign=True)} to {number(c.high, sign=True)})",
            number(c.p_holm, 3),
            style="red" if c.dropped else None,
        )
    print_table(console, table)
    if alone:
        console.print(f"not compared, for want of a partner: {'; '.join(alone)}", markup=False, highlight=False)
    dropped = [c for c in found if c.dropped]
    for c in dropped:
        console.print(f"proven drop: {c.contestant} on {c.task}, judge {c.judge}", markup=False, highlight=False)
    if any(1 in (c.seeds_before, c.seeds_after) for c in found):
        console.print("one training seed on a side: how far training alone moves a row is not known", highlight=False)
    if not dropped:
        console.print(
            f"no drop is proven at {alpha:g} (one-sided, Holm over {counted(len(found), 'rows')})", highlight=False
        )
