"""`check`: has a stored result got worse by more than chance? One-sided, paired by prompt, Holm-corrected."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench import scoring
from dadpo_bench.errors import UserError
from dadpo_bench.leaderboard import number
from dadpo_bench.scores import DRAWS, SEED, panels
from dadpo_bench.scoring.outcomes import Floats
from dadpo_bench.store import Store, schema

_Row = tuple[str, str, str, str, str]
"""Protocol's key, recipe, judge, task and contestant."""


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


def compare_stores(new: Store, old: Store, alpha: float) -> list[Compared]:
    """Every row that both stores have, paired by prompt.

    Raises `UserError` where the stores share no row.
    """
    fresh, stored = _outcomes(new), _outcomes(old)
    raw: list[tuple[_Row, Floats, Floats, scoring.Difference]] = []
    for row in sorted(fresh.keys() & stored.keys()):
        prompts = [p for p in stored[row] if p in fresh[row]]
        after, before = (np.stack([side[row][p] for p in prompts], 1) for side in (fresh, stored))
        counts = scoring.bootstrap_counts(len(prompts), DRAWS, SEED)
        found = scoring.paired_difference(after, before, counts, seed=SEED, alternative="less")
        if found is not None:
            raw.append((row, before, after, found))
    if not raw:
        raise UserError(
            f"{new.name} and {old.name} share no row: equal recipe (but for its methods), judge and task needed"
        )
    corrected = scoring.holm([found.p_value for *_, found in raw])
    return [
        Compared(
            *row[1:],
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


def _mean(outcomes: Floats) -> float:
    """(seeds, prompts) → per cent, as the board's win rate."""
    return 100 * float(np.nanmean(scoring.nanmean(outcomes, 0)))


def _outcomes(store: Store) -> dict[_Row, dict[str, Floats]]:
    """(seeds,) outcomes of every prompt that was scored under some seed, for each row of the store."""
    found: dict[_Row, dict[str, Floats]] = {}
    with store.read() as session:
        for protocol, judge in _scored(session):
            for panel in panels(session, protocol.key, judge.key):
                for entrant in panel.entrants:
                    if entrant.kind not in ("method", "student"):
                        continue
                    outcomes = scoring.prompt_outcomes(panel.orders(entrant))
                    row = (protocol.key, protocol.name, judge.name, panel.task.name, entrant.label)
                    given = {p: o for p, o in zip(panel.prompts, outcomes.T, strict=True) if not np.isnan(o).all()}
                    if given:
                        found[row] = given
    return found


def _scored(session: Session) -> list[tuple[schema.Protocol, schema.Judge]]:
    query = select(schema.Score.protocol_key, schema.Score.judge_key).distinct()
    return [
        (session.get_one(schema.Protocol, protocol), session.get_one(schema.Judge, judge))
        for protocol, judge in session.execute(query)
    ]


def show(console: Console, found: list[Compared], alpha: float) -> None:
    """The table, and the verdict in words."""
    table = Table("task", "contestant", "judge", "seeds", "before", "after", "difference", "95 % interval", "p (Holm)")
    for c in found:
        table.add_row(
            *(escape(name) for name in (c.task, c.contestant, c.judge)),
            f"{c.seeds_before} → {c.seeds_after}",
            number(c.before),
            number(c.after),
            number(c.difference, sign=True),
            f"{number(c.low, sign=True)} to {number(c.high, sign=True)}",
            number(c.p_holm, 3),
            style="red" if c.dropped else None,
        )
    console.print(table)
    dropped = [c for c in found if c.dropped]
    for c in dropped:
        console.print(f"proven drop: {c.contestant} on {c.task}, judge {c.judge}", markup=False, highlight=False)
    if any(1 in (c.seeds_before, c.seeds_after) for c in found):
        console.print("one training seed on a side: how far training alone moves a row is not known", highlight=False)
    if not dropped:
        console.print(f"no drop is proven at {alpha:g} (one-sided, Holm over {len(found)} rows)", highlight=False)
