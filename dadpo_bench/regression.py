"""`check`: which stored results got better or worse by more than chance? Paired by prompt, Holm over the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dadpo_bench import scoring
from dadpo_bench.counts import counted
from dadpo_bench.errors import UserError
from dadpo_bench.judging.judgments import told_apart
from dadpo_bench.leaderboard import number
from dadpo_bench.open_board import is_open
from dadpo_bench.panels import DRAWS, SEED, Entrant, Panel, panels
from dadpo_bench.progress import Reporter, silent
from dadpo_bench.scoring.outcomes import Floats
from dadpo_bench.store import Store, scored_boards
from dadpo_bench.tables import print_table
from dadpo_bench.types import content_key

Direction = Literal["better", "same", "worse"]

_STYLES: Mapping[Direction, str | None] = {"worse": "red", "better": "green", "same": None}
"""In the order in which a table has them."""


class Place(NamedTuple):
    """Where a row stands, as a board names it."""

    recipe: str
    judge: str
    task: str
    contestant: str

    def __str__(self) -> str:
        return " / ".join(self)


class _Row(NamedTuple):
    """A contestant's outcomes on one task by one judge."""

    identity: tuple[str, ...]
    """Keys of protocol, task and judge (but for its arithmetic), and the contestant's name: equal for two stores."""
    settings: Mapping[str, Any]
    judge_key: str
    place: Place
    measure: str
    outcomes: dict[str, Floats]
    """(seeds,) of every prompt that was scored under some seed."""


class Compared(NamedTuple):
    """One row that both stores have."""

    recipe: str
    judge: str
    task: str
    contestant: str
    measure: str
    """`win rate`, per cent; or `rating`, in the judge's unit, where responses meet no baseline."""
    prompts: int
    """That both scored."""
    seeds_before: int
    seeds_after: int
    before: float
    """On the shared prompts, as `after`."""
    after: float
    difference: float
    low: float
    high: float
    p_value: float
    """Two-sided."""
    p_holm: float
    direction: Direction
    """`same`: not told apart. Proven is what has p (Holm) under the level asked for, and an interval, which knows of
    seeds, on one side of 0."""

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(self.recipe, self.judge, self.task, self.contestant)

    @property
    def dropped(self) -> bool:
        """Whether it is proven to be worse."""
        return self.direction == "worse"

    @property
    def evidence(self) -> str:
        """The figures behind it, in one line."""
        unit = " points" if self.measure == "win rate" else ""
        return (
            f"{self.measure} {self.change}, difference {self.gap}{unit} (95 %), p (Holm) {number(self.p_holm, 4)}, "
            f"{counted(self.prompts, 'prompts')}, seeds {self.seeds_before} → {self.seeds_after}"
        )

    @property
    def change(self) -> str:
        """Before → after."""
        return f"{number(self.before, self._digits)} → {number(self.after, self._digits)}"

    @property
    def gap(self) -> str:
        """The difference and its interval."""
        estimate, low, high = (number(v, self._digits, sign=True) for v in (self.difference, self.low, self.high))
        return f"{estimate} ({low} to {high})"

    @property
    def _digits(self) -> int:
        return 1 if self.measure == "win rate" else 2

    def as_data(self) -> dict[str, Any]:
        """For machines."""
        return {**self._asdict(), "dropped": self.dropped}


class Comparison(NamedTuple):
    """What two stores say of each other."""

    rows: list[Compared]
    new: list[Place]
    """Rows of the current store that the other does not have."""
    gone: list[Place]
    """Rows of the other store that the current one does not have."""


def compare_stores(new: Store, old: Store, alpha: float, reporter: Reporter | None = None) -> Comparison:
    """Every row that both stores have, paired by prompt, and those that only one has.

    Rows belong together by content: protocol, prompts, judge, contestant and settings; on open boards prompts need
    not all be shared. Raises `UserError` where the stores share no row.
    """
    reporter = reporter or silent()
    stored = _rows(old, reporter)
    by_identity: dict[tuple[str, ...], list[_Row]] = {}
    for row in stored:
        by_identity.setdefault(row.identity, []).append(row)
    alone: list[Place] = []
    paired: list[tuple[_Row, _Row]] = []
    for row in _rows(new, reporter):
        partner = _partner(row, by_identity.get(row.identity, ()))
        if partner is None:
            alone.append(row.place)
        else:
            paired.append((row, partner))
    sides = [tuple(np.stack([r.outcomes[p] for p in _shared(*pair)], 1) for r in pair) for pair in paired]
    differences = scoring.paired_differences([(ours, theirs) for ours, theirs in sides], draws=DRAWS, seed=SEED)
    raw = [
        (row, after, before, found)
        for (row, _), (after, before), found in zip(paired, sides, differences, strict=True)
        if found is not None
    ]
    if not raw:
        raise UserError(
            f"{new.name} and {old.name} share no row: equal models, prompts, dSFT settings, judge and method needed, "
            "and two prompts that both scored"
        )
    corrected = scoring.holm([found.p_value for *_, found in raw])
    rows = [_compared(*one, p_holm, alpha) for one, p_holm in zip(raw, corrected, strict=True)]
    met = {id(partner) for _, partner in paired}
    alone += [row.place for (row, _), found in zip(paired, differences, strict=True) if found is None]
    return Comparison(rows, alone, [row.place for row in stored if id(row) not in met])


def _compared(
    row: _Row, after: Floats, before: Floats, found: scoring.Difference, p_holm: float, alpha: float
) -> Compared:
    scale = 100 if row.measure == "win rate" else 1
    proven = p_holm < alpha
    direction: Direction = "worse" if proven and found.high < 0 else "better" if proven and found.low > 0 else "same"
    return Compared(
        *row.place,
        measure=row.measure,
        prompts=found.prompts,
        seeds_before=before.shape[0],
        seeds_after=after.shape[0],
        before=scale * _mean(before),
        after=scale * _mean(after),
        difference=found.estimate * scale / 100,
        low=found.low * scale / 100,
        high=found.high * scale / 100,
        p_value=found.p_value,
        p_holm=p_holm,
        direction=direction,
    )


def _shared(row: _Row, partner: _Row) -> list[str]:
    return [prompt for prompt in partner.outcomes if prompt in row.outcomes]


def _partner(row: _Row, stored: Sequence[_Row]) -> _Row | None:
    """The stored row of the same experiment, preferably by a judge of the same arithmetic too."""

    def agree(other: _Row) -> bool:
        # A setting that only one side knows of came with a later version, at a default that changes nothing.
        common = row.settings.keys() & other.settings.keys()
        return all(row.settings[k] == other.settings[k] for k in common)

    fitting = [other for other in stored if agree(other) and other.outcomes.keys() & row.outcomes.keys()]
    return min(fitting, key=lambda other: other.judge_key != row.judge_key, default=None)


def _mean(outcomes: Floats) -> float:
    """(seeds, prompts) → their mean, as the board's."""
    return float(np.nanmean(scoring.nanmean(outcomes, 0)))


def _rows(store: Store, reporter: Reporter) -> list[_Row]:
    found: list[_Row] = []
    with store.read() as session:
        scored = scored_boards(session)
        judges = {judge.key: judge for _, judge in scored}
        names = dict(zip(judges, told_apart(list(judges.values())), strict=True))
        with reporter.bar(f"reading {store.name}", len(scored), "boards") as bar:
            for protocol, judge in scored:
                identity = _portable(judge.identity)
                # A panel's name has its members in the order asked for.
                judged = content_key("" if "panel" in identity else judge.name, identity)
                for panel in panels(session, protocol.key, judge.key):
                    task = panel.task.name if is_open(protocol.settings) else panel.task.key
                    for entrant, outcomes in _standing(panel):
                        first = entrant.contestants[0]
                        found.append(
                            _Row(
                                (protocol.key, task, judged, first.name),
                                first.settings,
                                judge.key,
                                Place(protocol.name, names[judge.key], panel.task.name, entrant.label),
                                panel.measure,
                                outcomes,
                            )
                        )
                bar.advance()
    return found


def _standing(panel: Panel) -> Iterator[tuple[Entrant, dict[str, Floats]]]:
    """Everybody who is neither baseline nor canary and was scored: (seeds,) by prompt."""
    for entrant in panel.contestants:
        outcomes = panel.standing(entrant)
        given = {p: o for p, o in zip(panel.prompts, outcomes.T, strict=True) if not np.isnan(o).all()}
        if given:
            yield entrant, given


def _portable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A judge's identity on any machine: without the number format, that of a panel's members included."""
    kept = {name: value for name, value in identity.items() if name != "precision"}
    if "panel" in kept:
        kept["panel"] = sorted(([entry, _portable(member)] for entry, member in kept["panel"]), key=content_key)
    return kept


def show(console: Console, found: Comparison, alpha: float) -> None:
    """The tables, what was left out of them, and the outcome in words."""
    for measure in sorted({c.measure for c in found.rows}, reverse=True):
        _show_table(console, [c for c in found.rows if c.measure == measure])
    for line in _lines(found, alpha):
        console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _lines(found: Comparison, alpha: float) -> Iterator[str]:
    for where, places in (("the store compared with", found.new), ("this store", found.gone)):
        if places:
            named = "; ".join(map(str, places[:_NAMED]))
            more = f"; and {len(places) - _NAMED:,} more" if len(places) > _NAMED else ""
            yield f"not compared, for want of a partner in {where}: {named}{more}"
    yield from (f"proven drop: {c.contestant} on {c.task}, judge {c.judge}" for c in found.rows if c.dropped)
    if any(1 in (c.seeds_before, c.seeds_after) for c in found.rows):
        yield "one training seed on a side: how far training alone moves a row is not known"
    better, same, worse = (
        sum(c.direction == direction for c in found.rows) for direction in ("better", "same", "worse")
    )
    level = f"at {alpha:g} (two-sided, Holm over {counted(len(found.rows), 'rows')})"
    told = f"{better} better, {same} not told apart, {worse} worse {level}"
    yield told if worse else f"{told}: no drop is proven"


_NAMED = 10
"""Rows without a partner that are named; --json and --junit have all."""


def _show_table(console: Console, rows: Sequence[Compared]) -> None:
    recipes, judges = ({getattr(c, name) for c in rows} for name in ("recipe", "judge"))
    title = f"{rows[0].measure}{', %' * (rows[0].measure == 'win rate')}, before → after"
    if len(judges) == 1:
        title += f"; judge {rows[0].judge}"
    table = Table(title=escape(title), padding=(0, 0))
    table.add_column("task, contestant")
    for name in ("outcome", "seeds", "before → after", "difference (95 %)", "p (Holm)"):
        table.add_column(name, no_wrap=True)
    for c in sorted(rows, key=lambda c: list(_STYLES).index(c.direction)):
        more = [c.judge] * (len(judges) > 1) + [c.recipe] * (len(recipes) > 1)
        table.add_row(
            escape(", ".join([c.task, c.contestant, *more])),
            "not told apart" if c.direction == "same" else c.direction,
            f"{c.seeds_before} → {c.seeds_after}",
            c.change,
            c.gap,
            number(c.p_holm, 3),
            style=_STYLES[c.direction],
        )
    print_table(console, table)
