"""Every comparison of a store, one row each: to be listed, filtered, linked to, and looked into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench.panels import BASELINES, Entrant, Floats, Panel
from dadpo_bench.recipe import FIRST
from dadpo_bench.scoring import prompt_outcomes
from dadpo_bench.store import schema
from dadpo_bench.store.rows import chunks
from dadpo_bench.types import content_key

OUTCOMES = ("win", "tie", "loss", "unscored", "rated")
"""Of a contestant's response against its baseline's; `rated` where responses meet none."""


class Comparison(NamedTuple):
    """A contestant's response to a prompt against its baseline's, as one judge saw the two."""

    key: str
    """Names it in links: the same for the same judge, contestant, task and prompt."""
    protocol_key: str
    judge_key: str
    task_key: str
    prompt_key: str
    contestant: str
    """As the board calls it, all its training seeds by one name."""
    seed: int | None
    baseline: str
    """Empty where responses are only rated."""
    category: str
    outcome: str
    """One of `OUTCOMES`."""
    worth: float | None
    """In [0, 1]: 1 won, ½ tied, in between over two orders or where the judge grades; the rating itself where rated."""
    flipped: bool
    """Whether the two orders' verdicts lie on opposite sides of ½."""
    length_ratio: float | None
    """Characters of the contestant's response over the baseline's."""
    ours: str
    """The response's key; empty where it gave none."""
    theirs: str


def comparisons_of(panel: Panel, protocol_key: str) -> Iterator[Comparison]:
    """In the order of contestants, seeds and prompts; canaries last, who meet dSFT."""
    keys = [*panel.judgments.places, ""]  # the last stands for no response
    for entrant, orders in sorted(zip(panel.entrants, panel.all_orders, strict=True), key=lambda e: _last(e[0])):
        if entrant.kind in BASELINES and not panel.rated_alone:
            continue
        asked = np.ones(len(panel.prompts), bool) if panel.rated_alone else panel.asked(entrant)
        ours, theirs = _responses(panel, entrant, asked)
        worth = panel.standing(entrant) if panel.rated_alone else prompt_outcomes(orders)
        flipped = _flipped(orders) if not panel.rated_alone else np.zeros(ours.shape, bool)
        ratios = _length_ratios(panel, entrant, asked)
        baseline = "" if panel.rated_alone else FIRST if entrant.kind == "canary" else _name(panel)
        prompts, categories = (np.array(values, dtype=object)[asked] for values in (panel.prompts, panel.categories))
        for seed, contestant in enumerate(entrant.contestants):
            for at, prompt in enumerate(prompts):
                value = None if np.isnan(worth[seed, at]) else float(worth[seed, at])
                ratio = ratios[seed, at]
                yield Comparison(
                    content_key("comparison", panel.judge.key, contestant.key, panel.task.key, prompt)[:12],
                    protocol_key,
                    panel.judge.key,
                    panel.task.key,
                    prompt,
                    entrant.label,
                    contestant.seed,
                    baseline,
                    categories[at],
                    _outcome(value, rated=panel.rated_alone),
                    value,
                    bool(flipped[seed, at]),
                    None if np.isnan(ratio) else float(ratio),
                    keys[ours[seed, at]],
                    keys[theirs[seed, at]],
                )


def _last(entrant: Entrant) -> bool:
    return entrant.kind == "canary"


def _name(panel: Panel) -> str:
    return panel.baseline.name if panel.baseline else ""


def _responses(panel: Panel, entrant: Entrant, asked: Any) -> tuple[Any, Any]:
    """(seeds, prompts) places of the responses and of those that they meet; −1 for none."""
    if not panel.rated_alone:
        return panel.pairs(entrant)
    ours = np.stack([panel.given[c.key].responses[asked] for c in entrant.contestants])
    return ours, np.full(ours.shape, -1)


def _flipped(orders: Floats) -> Any:
    if orders.shape[-1] != 2:
        return np.zeros(orders.shape[:-1], bool)
    return (orders[..., 0] - 0.5) * (orders[..., 1] - 0.5) < 0  # nothing is below 0 where one is unscored


def _length_ratios(panel: Panel, entrant: Entrant, asked: Any) -> Floats:
    ours = panel.lengths(entrant)[:, asked]
    theirs = np.full(ours.shape, np.nan)
    for seed, contestant in enumerate(entrant.contestants):
        other = panel.against(contestant)
        if other is not None and other.key in panel.given:
            given = panel.given[other.key]
            theirs[seed] = np.where(given.responses >= 0, given.looks[:, 0], np.nan)[asked]
    ratios: Floats = np.divide(ours, theirs, out=np.full(ours.shape, np.nan), where=theirs > 0)
    return ratios


def _outcome(worth: float | None, *, rated: bool) -> str:
    if worth is None:
        return "unscored"
    if rated:
        return "rated"
    return "win" if worth > 0.5 else "loss" if worth < 0.5 else "tie"


ORDERS = {
    "ab": "contestant shown first",
    "ba": "contestant shown second",
    "contestant": "of the contestant's response",
    "baseline": "of the baseline's response",
}
"""What a judge's words are about, in words."""


class Said(NamedTuple):
    """What a judge said of two responses in one order, or of one response."""

    about: str
    """One of `ORDERS`."""
    outcome: str
    """Of a verdict; empty of a rating."""
    value: float | None
    """A rating, or the graded preference for the contestant's response."""
    by_turn: tuple[float | None, ...]
    reason: str
    """Why it is unscored."""
    raw: str
    """The judge's own words."""
    model: str
    """That the endpoint says answered."""
    tokens: int
    answer_tokens: int
    seconds: float

    def as_data(self) -> dict[str, Any]:
        """For machines, without what says nothing."""
        return {name: value for name, value in self._asdict().items() if value not in ("", None, (), 0, 0.0)}


class Details(NamedTuple):
    """The texts behind some comparisons."""

    prompts: Mapping[str, schema.Prompt]
    responses: Mapping[str, schema.Response]
    said: Mapping[str, Sequence[Said]]
    """By the comparison's key."""


def details_of(session: Session, compared: Sequence[Comparison]) -> Details:
    """Prompts, responses and the judges' words of some comparisons."""
    responses = {key for c in compared for key in (c.ours, c.theirs) if key}
    return Details(
        _by_key(session, schema.Prompt, {c.prompt_key for c in compared}),
        _by_key(session, schema.Response, responses),
        _said(session, compared),
    )


def _by_key(session: Session, table: Any, keys: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for some in chunks(sorted(keys)):
        found |= {row.key: row for row in session.scalars(select(table).where(table.key.in_(some)))}
    return found


def _said(session: Session, compared: Sequence[Comparison]) -> dict[str, list[Said]]:
    judges = {c.judge_key for c in compared}
    ours = sorted({c.ours for c in compared if c.ours})
    every = sorted({key for c in compared for key in (c.ours, c.theirs) if key})
    verdicts: dict[tuple[str, str, str], list[Said]] = {}
    ratings: dict[tuple[str, str], schema.Rating] = {}
    for some in chunks(ours):
        asked = select(schema.Verdict).where(
            schema.Verdict.judge_key.in_(judges), schema.Verdict.contestant_response.in_(some)
        )
        for row in session.scalars(asked.order_by(schema.Verdict.order)):
            place = row.judge_key, row.contestant_response, row.baseline_response
            verdicts.setdefault(place, []).append(_as_said(row, row.order, row.outcome, row.preference))
    for some in chunks(every):
        rated = select(schema.Rating).where(schema.Rating.judge_key.in_(judges), schema.Rating.response_key.in_(some))
        ratings |= {(row.judge_key, row.response_key): row for row in session.scalars(rated)}
    found = {}
    for c in compared:
        sides = (("contestant", c.ours), ("baseline", c.theirs))
        given = [(side, ratings[c.judge_key, key]) for side, key in sides if (c.judge_key, key) in ratings]
        found[c.key] = [
            *verdicts.get((c.judge_key, c.ours, c.theirs), ()),
            *(_as_said(row, side, "", row.value, tuple(row.by_turn)) for side, row in given),
        ]
    return found


def _as_said(
    row: schema.Verdict | schema.Rating,
    about: str,
    outcome: str,
    value: float | None,
    by_turn: tuple[float | None, ...] = (),
) -> Said:
    return Said(
        about,
        outcome,
        value,
        by_turn,
        row.reason,
        row.raw,
        row.resolved_model,
        row.tokens,
        row.answer_tokens,
        row.seconds,
    )
