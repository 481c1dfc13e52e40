"""How many prompts tell two methods of a store apart, by how they differ there, and what judging them costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import combinations
from statistics import median_high
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dadpo_bench import registry, scoring
from dadpo_bench.errors import UserError
from dadpo_bench.panels import Panel, panels
from dadpo_bench.progress import Reporter, silent
from dadpo_bench.scoring.outcomes import Floats
from dadpo_bench.store import Store, schema, scored_boards


class Aim(NamedTuple):
    """What is to be found."""

    effect: float
    """Points of win rate, or of ratings where responses meet no baseline."""
    power: float = 0.8
    alpha: float = 0.05
    """Two-sided, of one comparison."""


class Pair(NamedTuple):
    """Two methods on the prompts that they share, seeds averaged; points as of `Aim.effect`."""

    first: str
    second: str
    prompts: int
    difference: float
    sd: float
    """Sample deviation of the differences by prompt."""
    needed: int | None
    """Prompts that find the effect; None where the two never differed by more or less: nothing is known of them."""
    detectable: float | None
    """Effect that as many prompts as there are find; None where none can be found, or nothing is known."""


class Judged(NamedTuple):
    """What one judge, alone or on a panel, is asked and takes."""

    name: str
    judgments: int
    """For each prompt."""
    tokens: float | None
    """Of a judgment, question and answer, mean over the stored ones of the task; None where none are stored."""
    usd: float | None
    """Of a judgment; None where no price is known."""


class Cost(NamedTuple):
    """Of judging everybody on a board on so many prompts; drawing the responses is not in it."""

    prompts: int
    judgments: int
    tokens: int | None
    usd: float | None


class Board(NamedTuple):
    """One task, as one judge sees it."""

    recipe: str
    task: str
    judge: str
    unit: str
    """`points` of win rate, or `rating points`."""
    methods: int
    contestants: int
    """Methods times their seeds."""
    pairs: list[Pair]
    """Those that need most prompts first, unknown ones last."""
    judged_by: list[Judged]

    @property
    def known(self) -> list[Pair]:
        """Pairs that differed."""
        return [pair for pair in self.pairs if pair.needed is not None]

    @property
    def hardest(self) -> Pair:
        """The pair that needs most prompts."""
        return self.known[0]

    @property
    def median_needed(self) -> int:
        """Prompts that do for half of the pairs."""
        return median_high(pair.needed for pair in self.known if pair.needed is not None)

    def cost(self, prompts: int) -> Cost:
        """Of judging everybody on so many prompts."""
        tokens, usd = (
            [None if getattr(j, name) is None else getattr(j, name) * j.judgments for j in self.judged_by]
            for name in ("tokens", "usd")
        )
        known, price = _total(tokens), _total(usd)
        return Cost(
            prompts,
            prompts * sum(j.judgments for j in self.judged_by),
            None if known is None else round(prompts * known),
            None if price is None else prompts * price,
        )

    def as_data(self) -> dict[str, Any]:
        """For machines."""
        found: dict[str, Any] = {**self._asdict(), "pairs": [pair._asdict() for pair in self.pairs]}
        found["judged_by"] = [judged._asdict() for judged in self.judged_by]
        if self.known:
            needed = self.hardest.needed or 0
            found |= {"needed": needed, "median_needed": self.median_needed, "cost": self.cost(needed)._asdict()}
        return found


def _total(values: Iterable[float | None]) -> float | None:
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def boards(
    store: Store, aim: Aim, *, task: str | None = None, judge: str | None = None, reporter: Reporter | None = None
) -> list[Board]:
    """Every board of the store with two judged methods; of one task, by one judge, where those are named.

    Raises `UserError` where there is none, for an unknown name, and as `scoring.prompts_needed`.
    """
    reporter = reporter or silent()
    scoring.detectable_effect(1.0, 2, power=aim.power, alpha=aim.alpha)  # a wrong level is told before any reading
    with store.read() as session:
        scored = scored_boards(session)
        _known("judge", judge, {j.name for _, j in scored})
        judged = [
            (protocol, panel)
            for protocol, one in scored
            if judge in (None, one.name)
            for panel in panels(session, protocol.key, one.key)
        ]
        _known("task", task, {panel.task.name for _, panel in judged})
        found = [
            board
            for protocol, panel in judged
            if task in (None, panel.task.name)
            and (board := _board(session, protocol, panel, aim, reporter or silent()))
        ]
    if not found:
        raise UserError(
            f"{store.name} has no two methods that a judge saw on the same two prompts: "
            "`dadpo-bench run sft dpo` makes some, `dadpo-bench import` takes others"
        )
    return found


def _known(kind: str, name: str | None, names: set[str]) -> None:
    if name is not None and names and name not in names:
        raise UserError(registry.unknown(kind, name, sorted(names)))


def _board(session: Session, protocol: schema.Protocol, panel: Panel, aim: Aim, reporter: Reporter) -> Board | None:
    entrants = panel.contestants
    standing = {e.label: panel.unit * scoring.nanmean(panel.standing(e), 0) for e in entrants}
    pairs = []
    with reporter.bar(panel.task.name, math.comb(len(standing), 2), "pairs") as bar:
        for first, second in combinations(standing, 2):
            pair = _pair(first, second, standing[first] - standing[second], aim)
            pairs += [pair] if pair.prompts > 1 else []
            bar.advance()
    if not pairs:
        return None
    contestants = sum(len(e.contestants) for e in entrants)
    orders = max(panel.orders(e).shape[-1] for e in entrants)
    met = contestants + (panel.baseline is not None)
    judges = [judge for judge, _ in panel.members] or [panel.judge]
    return Board(
        protocol.name,
        panel.task.name,
        panel.judge.name,
        "rating points" if panel.rated_alone else "points",
        len(entrants),
        contestants,
        sorted(pairs, key=lambda pair: -(pair.needed or 0)),
        # A panel's pointwise members rate each response once, the baseline's too.
        [_judged(session, j, panel.task.key, met if j.kind == "pointwise" else orders * contestants) for j in judges],
    )


def _pair(first: str, second: str, gaps: Floats, aim: Aim) -> Pair:
    shared = gaps[~np.isnan(gaps)]
    if len(shared) < 2:
        return Pair(first, second, len(shared), math.nan, math.nan, None, None)
    sd = float(shared.std(ddof=1))
    sd = 0.0 if sd < 1e-9 else sd
    detectable = sd * _unit_effect(len(shared), aim.power, aim.alpha) if sd else math.inf
    return Pair(
        first,
        second,
        len(shared),
        float(shared.mean()),
        sd,
        scoring.prompts_needed(sd, aim.effect, power=aim.power, alpha=aim.alpha) if sd else None,
        detectable if math.isfinite(detectable) else None,
    )


@lru_cache
def _unit_effect(prompts: int, power: float, alpha: float) -> float:
    return scoring.detectable_effect(1.0, prompts, power=power, alpha=alpha)


def _judged(session: Session, judge: schema.Judge, task_key: str, judgments: int) -> Judged:
    table: Any = schema.Rating if judge.kind == "pointwise" else schema.Verdict
    which = schema.Rating.response_key if judge.kind == "pointwise" else schema.Verdict.contestant_response
    answered = select(schema.Answer.response_key).where(schema.Answer.task_key == task_key)
    count, tokens, answers = session.execute(
        select(func.count(), func.sum(table.tokens), func.sum(table.answer_tokens)).where(
            table.judge_key == judge.key, table.tokens > 0, which.in_(answered)
        )
    ).one()
    if not count:
        return Judged(judge.name, judgments, None, None)
    usd = usd_of(judge.identity, (tokens - answers) / count, answers / count)
    return Judged(judge.name, judgments, tokens / count, usd)


def usd_of(identity: Mapping[str, Any], read: float, answered: float) -> float | None:
    """What so many tokens cost. By the judge that the identity names, where it is installed and knows a price."""
    name = identity.get("judge")
    if name not in registry.judges.names():
        return None
    target = registry.judges.load(str(name))
    found: float | None = target.usd_of(identity, read, answered) if hasattr(target, "usd_of") else None
    return found
