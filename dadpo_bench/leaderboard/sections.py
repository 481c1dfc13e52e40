"""Boards as data: the rows of every protocol and judge, how they rank, and which differences are proven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench import registry, scoring
from dadpo_bench.errors import UserError
from dadpo_bench.judging.judgments import told_apart
from dadpo_bench.leaderboard.facts import Cells, domain_in_words, facts, members, warnings
from dadpo_bench.panels import DRAWS, SEED, Panel, panels
from dadpo_bench.recipe import FIRST
from dadpo_bench.scores import Lens, rows_of
from dadpo_bench.scoring import agreement
from dadpo_bench.store import schema, scored_boards

LEVEL = 0.05
"""Of a proven difference, over all of a section."""


@dataclass(frozen=True)
class Section:
    """Rows that may be compared: one protocol, one judge."""

    protocol_key: str
    recipe: str
    judge: str
    judge_key: str
    proxy: bool
    rows: list[Cells]
    domains: dict[str, str]
    """Domain of each task, `in` or `out`."""
    facts: list[str]
    warnings: list[str]
    accord: agreement.Accord | None = None
    """Of the members of a panel."""
    differences: list[Cells] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    """What the rows were computed from, a task each."""

    @property
    def board_rows(self) -> list[Cells]:
        """Contestants against the teacher."""
        return [row for row in self.rows if row["baseline"] != FIRST]

    @property
    def canary_rows(self) -> list[Cells]:
        """Canaries against dSFT."""
        return [row for row in self.rows if row["baseline"] == FIRST]


class View(NamedTuple):
    """What of a store's boards is asked for."""

    task: str | None = None
    judge: str | None = None
    per_seed: bool = False
    """Each training seed in a row of its own."""
    by_category: bool = False
    """Beside the row of the whole task one for each category."""
    lens: Lens | None = None
    fit_lengths: bool = True
    """Whether length control is fitted: half a minute for a million verdicts."""


EVERYTHING = View()
"""The board that a store has a file of."""


def sections(
    session: Session, view: View = EVERYTHING, boards: Sequence[tuple[schema.Protocol, schema.Judge]] | None = None
) -> list[Section]:
    """The sections of a store's board, computed from judgments; of all that are scored, or of these `boards`.

    Raises `UserError` with near names for a task or a judge that none of them has.
    """
    found = scored_boards(session) if boards is None else boards
    named = _told_apart([judge for _, judge in found])
    recipes = _told_apart([protocol for protocol, _ in found])
    known = {*named.values(), *(judge.name for _, judge in found)}
    if view.judge is not None and view.judge not in known:
        raise UserError(registry.unknown("judge", view.judge, sorted(known)))
    made = [
        _section(session, (protocol, recipes[protocol.key]), (judge, named[judge.key]), view)
        for protocol, judge in found
        if view.judge in (None, judge.name, named[judge.key])
    ]
    if view.task is not None and not any(section.domains for section in made):
        tasks = session.scalars(select(schema.Task.name).join(schema.Score, schema.Score.task_key == schema.Task.key))
        raise UserError(registry.unknown("task", view.task, sorted(set(tasks))))
    return [section for section in made if section.domains]


def _told_apart(rows: Sequence[schema.Protocol] | Sequence[schema.Judge]) -> dict[str, str]:
    """By key: the name, with the beginning of the key where another has it too."""
    single = list({row.key: row for row in rows}.values())
    return {row.key: name for row, name in zip(single, told_apart(single), strict=True)}


def _section(
    session: Session, recipe: tuple[schema.Protocol, str], asked: tuple[schema.Judge, str], view: View
) -> Section:
    (protocol, title), (judge, name) = recipe, asked
    everything = panels(session, protocol.key, judge.key)
    judged = [panel for panel in everything if view.task in (None, panel.task.name)]
    shown = [panel.per_seed() if view.per_seed else panel for panel in judged]
    if view.by_category:
        shown += [panel.of(c) for panel in list(shown) for c in sorted(set(panel.categories) - {""})]
    rows = [row.cells() for panel in shown for row in rows_of(panel, view.lens, fit_lengths=view.fit_lengths)]
    # All tasks are corrected for, shown or not: what is proven does not hang on the view.
    differences = [] if view.per_seed else _differences(everything)
    differences = [d for d in differences if view.task in (None, d["task"])]
    order = list(dict.fromkeys(panel.task.name for panel in judged))
    ranks = _ranks(differences)
    rows = [{**row, "rank": ranks.get((row["task"], row["category"], row["contestant"]))} for row in rows]
    accord = _accord(judged)
    return Section(
        protocol_key=protocol.key,
        recipe=title,
        judge=name,
        judge_key=judge.key,
        proxy=judge.proxy,
        rows=sorted(rows, key=lambda row: _place(row, order)),
        domains={panel.task.name: domain_in_words(panel.task.domain) for panel in judged},
        facts=facts(session, protocol, judge, judged),
        warnings=warnings(session, protocol, judge, judged, [row for row in rows if row["category"] is None])
        + ([f"Members agree: {accord}."] if accord else []),
        accord=accord,
        differences=differences,
        panels=judged,
    )


def _place(row: Cells, order: Sequence[str]) -> tuple[object, ...]:
    """Canaries last; tasks in order, the whole before its categories; the best first."""
    worth = row["win_rate"] if row["win_rate"] is not None else row["single_score"]
    return (
        row["baseline"] == FIRST,
        order.index(row["task"]),
        row["category"] or "",
        -(worth or 0),
        row["contestant"],
    )


def proven(difference: Cells) -> bool:
    """p knows nothing of the variance between training seeds, the interval does: both must agree."""
    return bool(difference["p_holm"] < LEVEL and not difference["low"] <= 0 <= difference["high"])


def _ranks(differences: Sequence[Cells]) -> dict[tuple[str, str | None, str], int]:
    """1 and one more for everybody who is proven better: who cannot be told apart shares a rank."""
    better: dict[tuple[str, str | None, str], int] = {}
    for found in differences:
        for name in (found["first"], found["second"]):
            better.setdefault((found["task"], None, name), 1)
        if proven(found):
            worse = found["second"] if found["estimate"] > 0 else found["first"]
            better[found["task"], None, worse] += 1
    return better


def _accord(judged: Sequence[Panel]) -> agreement.Accord | None:
    if seats := members(judged):
        return agreement.accord(told_apart(seats), np.hstack([panel.said_by_members() for panel in judged]))
    return None


def _differences(judged: Sequence[Panel]) -> list[Cells]:
    """Paired differences between methods on their shared prompts, Holm-corrected over all tasks of the section."""
    found: list[Cells] = []
    for panel in judged:
        methods = [e for e in panel.entrants if e.kind in ("method", "entrant")]
        counts = scoring.bootstrap_counts(len(panel.prompts), DRAWS, SEED)
        labels = sorted(e.label for e in methods)
        places = [[e.label for e in panel.entrants].index(label) for label in labels]
        outcomes = [panel.all_standings[place] for place in places]
        means = [panel.all_means[place] for place in places]
        tested = scoring.all_paired_differences(outcomes, means, counts, seed=SEED)
        for (first, second), difference in sorted(tested.items()):
            if difference is not None:
                pair = {"first": labels[first], "second": labels[second]}
                found.append({"task": panel.task.name, "measure": panel.measure, **pair, **_in(panel.unit, difference)})
    corrected = scoring.holm([f["p_value"] for f in found])
    return [{**f, "p_holm": p} for f, p in zip(found, corrected, strict=True)]


def _in(unit: float, difference: scoring.Difference) -> Cells:
    scaled = {name: getattr(difference, name) * unit / 100 for name in ("estimate", "low", "high")}
    return {**difference._asdict(), **scaled}


MOST = 28
"""Pairs of a task that are all shown: those of eight contestants."""


def telling(section: Section, task: str) -> tuple[list[Cells], int]:
    """The differences on a task that a reader asks for, and how many there are: of many, first and neighbours'."""
    here = [d for d in section.differences if d["task"] == task]
    if len(here) <= MOST:
        return here, len(here)
    best_first = [r["contestant"] for r in section.board_rows if r["task"] == task and r["rank"]]
    place = {name: at for at, name in enumerate(dict.fromkeys(best_first))}
    told = [
        d for d in here if 0 in (places := (place[d["first"]], place[d["second"]])) or abs(places[0] - places[1]) == 1
    ]
    return told, len(here)
