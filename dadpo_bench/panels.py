"""One judge's view of one task: who stood, what each answered, and how it came off, as arrays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench import scoring
from dadpo_bench.judging.judgments import Judgments, Places, members_of, places
from dadpo_bench.recipe import FIRST
from dadpo_bench.scoring.texts import Looks
from dadpo_bench.store import schema
from dadpo_bench.store.rows import tuples

DRAWS = 10_000
"""Bootstrap draws behind every interval."""

SEED = 20250616
"""Seeds the bootstrap: the same store gives the same numbers."""

BASELINES = ("teacher", "baseline")
"""Kinds of contestant that everybody else is compared with."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Entrant:
    """A contestant over its seeds."""

    label: str
    kind: str
    contestants: tuple[schema.Contestant, ...]

    @property
    def contends(self) -> bool:
        """Whether it is ranked: neither whom all are compared with, nor a canary."""
        return self.kind not in (*BASELINES, "canary")


class _Given(NamedTuple):
    """What one contestant answered, prompt by prompt."""

    responses: Places
    looks: NDArray[np.int64]
    """(prompts, 3): the fields of `Looks`; 0 where there is no answer."""
    cut: NDArray[np.bool_]

    def of(self, kept: NDArray[np.bool_]) -> _Given:
        """On some of the prompts."""
        return _Given(self.responses[kept], self.looks[kept], self.cut[kept])


@dataclass(frozen=True)
class Panel:
    """One judge's view of one task under one protocol: everybody against a baseline."""

    judge: schema.Judge
    task: schema.Task
    prompts: tuple[str, ...]
    """Keys, in the task's order."""
    categories: tuple[str, ...]
    """Of each prompt; empty where it has none."""
    entrants: tuple[Entrant, ...]
    """Who was judged, and the baseline."""
    judgments: Judgments
    members: tuple[tuple[schema.Judge, Judgments], ...]
    """Where several judges decide together: each, and what it said of the same responses."""
    divergences: Mapping[str, schema.ContestantDivergence]
    """By contestant's key."""
    given: Mapping[str, _Given]
    """By contestant's key."""
    category: str | None = None
    """Where only its prompts are looked at."""

    @property
    def contestants(self) -> list[Entrant]:
        """Everybody who is ranked."""
        return [entrant for entrant in self.entrants if entrant.contends]

    @cached_property
    def standard(self) -> Entrant | None:
        """Whom everybody but the canaries is compared with; None where responses are only rated."""
        return next((e for e in self.entrants if e.kind in BASELINES), None)

    @property
    def baseline(self) -> schema.Contestant | None:
        """The `standard`'s only contestant."""
        return self.standard.contestants[0] if self.standard else None

    @property
    def rated_alone(self) -> bool:
        """Whether responses are rated and meet nobody, for want of a baseline."""
        return self.judgments.pointwise and self.baseline is None

    @property
    def measure(self) -> str:
        """What contestants are compared by."""
        return "rating" if self.rated_alone else "win rate"

    @property
    def unit(self) -> float:
        """A step of `standing` as it is shown: per cent, or the judge's own unit."""
        return 1.0 if self.rated_alone else 100.0

    def per_seed(self) -> Panel:
        """With each training seed as an entrant of its own."""
        return replace(self, entrants=tuple(grouped([c for e in self.entrants for c in e.contestants], per_seed=True)))

    def of(self, category: str) -> Panel:
        """On the prompts of one category."""
        kept = np.array([c == category for c in self.categories], dtype=bool)
        return replace(
            self,
            prompts=tuple(p for p, keep in zip(self.prompts, kept, strict=True) if keep),
            categories=(category,) * int(kept.sum()),
            given={key: given.of(kept) for key, given in self.given.items()},
            category=category,
        )

    def against(self, contestant: schema.Contestant) -> schema.Contestant | None:
        """Canaries meet dSFT of their own seed, everybody else the baseline, which meets nobody."""
        if contestant.kind in BASELINES:
            return None
        if contestant.kind != "canary":
            return self.baseline
        dsft = (c for e in self.entrants if e.kind == "method" for c in e.contestants if c.name == FIRST)
        return next((c for c in dsft if c.seed == contestant.seed), None)

    def asked(self, entrant: Entrant) -> NDArray[np.bool_]:
        """(prompts,): on which it meets its baseline; a canary only where it was given an answer."""
        if entrant.kind in BASELINES:
            return np.zeros(len(self.prompts), dtype=bool)
        if entrant.kind != "canary":
            return np.ones(len(self.prompts), dtype=bool)
        return self.given[entrant.contestants[0].key].responses >= 0

    def pairs(self, entrant: Entrant) -> tuple[Places, Places]:
        """(seeds, prompts) of the entrant's responses and of its baseline's, on the prompts that it was asked."""
        asked = self.asked(entrant)
        ours = np.stack([self.given[c.key].responses[asked] for c in entrant.contestants])
        theirs = np.full(ours.shape, -1)
        for seed, contestant in enumerate(entrant.contestants):
            if (other := self.against(contestant)) is not None and other.key in self.given:
                theirs[seed] = self.given[other.key].responses[asked]
        return ours, theirs

    def orders(self, entrant: Entrant) -> Floats:
        """(seeds, prompts, orders) outcomes in [0, 1] against the entrant's baseline, NaN where unscored."""
        return self.judgments.outcomes(*self.pairs(entrant))

    @cached_property
    def all_orders(self) -> list[Floats]:
        """Of every entrant `orders`."""
        return [self.orders(entrant) for entrant in self.entrants]

    @cached_property
    def all_standings(self) -> list[Floats]:
        """Of every entrant `standing`."""
        return [self.standing(entrant) for entrant in self.entrants]

    @cached_property
    def all_means(self) -> list[Floats]:
        """Of every entrant (draws,) resampled means of its `standing`; one draw for all."""
        outcomes = self.all_standings
        means: dict[int, Floats] = {}
        for prompts in {given.shape[1] for given in outcomes}:
            same = [k for k, given in enumerate(outcomes) if given.shape[1] == prompts]
            counts = scoring.bootstrap_counts(prompts, DRAWS, SEED)
            means |= zip(same, scoring.all_bootstrap_means([outcomes[k] for k in same], counts, SEED), strict=True)
        return [means[k] for k in range(len(outcomes))]

    def ratings(self, entrant: Entrant) -> Floats:
        """(seeds, prompts) of what a pointwise judge gave, in its own unit; NaN where it gave nothing."""
        at = np.stack([self.given[c.key].responses for c in entrant.contestants])
        return np.where(at >= 0, self.judgments.ratings[at], np.nan)

    def standing(self, entrant: Entrant) -> Floats:
        """(seeds, prompts) of what two contestants are compared by: outcomes in [0, 1], ratings where `rated_alone`."""
        place = self.entrants.index(entrant)
        return self.ratings(entrant) if self.rated_alone else scoring.prompt_outcomes(self.all_orders[place])

    def ratings_by_turn(self, entrant: Entrant) -> Floats:
        """(turns, seeds, prompts): as `ratings`, where turns were rated apart; no turn where they were not."""
        at = np.stack([self.given[c.key].responses for c in entrant.contestants])
        rated = {place: turns for place in at[at >= 0].tolist() if (turns := self.judgments.by_turn.get(place))}
        found = np.full((max(map(len, rated.values()), default=0), *at.shape), np.nan)
        for cell, place in np.ndenumerate(at):
            for turn, value in enumerate(rated.get(int(place), ())):
                found[(turn, *cell)] = value
        return found

    def lengths(self, entrant: Entrant) -> Floats:
        """(seeds, prompts) characters of each response; NaN where there is none."""
        given = [self.given[c.key] for c in entrant.contestants]
        return np.stack([np.where(g.responses >= 0, g.looks[:, 0], np.nan) for g in given])

    def looks(self, entrant: Entrant) -> tuple[Looks, int, int]:
        """The sum over all its responses, how many there are, and how many of them were cut."""
        given = [self.given[c.key] for c in entrant.contestants]
        there = sum(int((g.responses >= 0).sum()) for g in given)
        total = sum((g.looks.sum(0) for g in given), np.zeros(3, dtype=np.int64))
        return Looks(*(int(value) for value in total)), there, sum(int(g.cut.sum()) for g in given)

    def said_by_members(self) -> Floats:
        """(members, comparisons) outcomes of all contestants but the canaries, on which it is easy to agree."""
        pairs = [self.pairs(e) for e in self.contestants]
        both = np.unique(np.concatenate([np.stack([o.ravel(), t.ravel()], 1) for o, t in pairs]), axis=0)
        both = both[(both >= 0).all(1)]
        return np.array([scoring.prompt_outcomes(said.outcomes(both[:, 0], both[:, 1])) for _, said in self.members])


def grouped(contestants: Sequence[schema.Contestant], *, per_seed: bool = False) -> list[Entrant]:
    """Contestants of one kind grouped over their seeds; equal names are told apart by settings and kind."""
    by_name: dict[str, list[schema.Contestant]] = defaultdict(list)
    for contestant in contestants:
        by_name[contestant.name].append(contestant)
    result = []
    for name, same in by_name.items():
        varying = _varying([c.settings for c in same])
        kinds = {c.kind for c in same}
        groups: dict[str, list[schema.Contestant]] = defaultdict(list)
        for contestant in same:
            told = [f"{key}={contestant.settings.get(key)}" for key in varying]
            shown = ", ".join([contestant.kind, *told] if len(kinds) > 1 else told)
            label = f"{name} ({shown})" if shown else name
            if per_seed and contestant.seed is not None and contestant.kind == "method":
                label += f", seed {contestant.seed}"
            groups[label].append(contestant)
        result += [
            Entrant(label, group[0].kind, tuple(sorted(group, key=lambda c: c.seed or 0)))
            for label, group in groups.items()
        ]
    return result


def _varying(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = sorted({key for s in settings for key in s})
    return [key for key in keys if len({str(s.get(key)) for s in settings}) > 1]


def panels(session: Session, protocol_key: str, judge_key: str) -> list[Panel]:
    """A panel for every task that contestants of the protocol answered, in-domain first."""
    judge = session.get_one(schema.Judge, judge_key)
    contestants = session.scalars(
        select(schema.Contestant)
        .where(schema.Contestant.protocol_key == protocol_key)
        .order_by(schema.Contestant.name, schema.Contestant.seed, schema.Contestant.key)
    ).all()
    answers = _answers(session, protocol_key)
    place = places(response for given in answers.values() for response, *_ in given.values())
    judgments = Judgments(session, judge, place)
    members = tuple((m, Judgments(session, m, place)) for m in members_of(session, judge))
    tasks = [session.get_one(schema.Task, key) for key in {task for task, _ in answers}]
    found = []
    for task in sorted(tasks, key=lambda t: (t.domain, t.name, t.key)):
        query = (
            select(schema.TaskPrompt.prompt_key, schema.TaskPrompt.category)
            .where(schema.TaskPrompt.task_key == task.key)
            .order_by(schema.TaskPrompt.position)
        )
        asked = [tuple(row) for row in session.execute(query)]
        given = {
            c.key: _given([prompt for prompt, _ in asked], answers[task.key, c.key], place)
            for c in contestants
            if (task.key, c.key) in answers
        }
        # Never asked is not unscored: a run may have been stopped before judging somebody.
        judged = [
            c
            for c in contestants
            if c.key in given and (c.kind in BASELINES or _any_asked(judgments, given[c.key].responses))
        ]
        rows = session.scalars(
            select(schema.ContestantDivergence).where(schema.ContestantDivergence.task_key == task.key)
        )
        found.append(
            Panel(
                judge,
                task,
                prompts=tuple(prompt for prompt, _ in asked),
                categories=tuple(category for _, category in asked),
                entrants=tuple(grouped(judged)),
                judgments=judgments,
                members=members,
                divergences={row.contestant_key: row for row in rows},
                given=given,
            )
        )
    return found


def _any_asked(judgments: Judgments, responses: Places) -> bool:
    return bool(judgments.asked[responses[responses >= 0]].any())


_Row = tuple[str, int, int, int, bool]
"""Of an answer: the response's key, the fields of its `Looks`, and whether it was cut."""


def _answers(session: Session, protocol_key: str) -> dict[tuple[str, str], dict[str, _Row]]:
    """By task and contestant: prompt → answer."""
    response, answer = schema.Response, schema.Answer
    query = (
        select(
            answer.task_key,
            answer.contestant_key,
            answer.prompt_key,
            answer.response_key,
            response.characters,
            response.grams,
            response.repeated,
            response.cut,
        )
        .join(response, response.key == answer.response_key)
        .join(schema.Contestant, schema.Contestant.key == answer.contestant_key)
        .where(schema.Contestant.protocol_key == protocol_key)
    )
    found: dict[tuple[str, str], dict[str, _Row]] = defaultdict(dict)
    for task, contestant, prompt, key, characters, grams, repeated, cut in tuples(session, query):
        found[task, contestant][prompt] = key, characters, grams, repeated, cut
    return found


def _given(prompts: Sequence[str], answers: Mapping[str, _Row], place: Mapping[str, int]) -> _Given:
    missing: _Row = ("", 0, 0, 0, False)
    rows = [answers.get(prompt, missing) for prompt in prompts]
    return _Given(
        np.array([place.get(row[0], -1) for row in rows], dtype=np.int64),
        np.array([row[1:4] for row in rows], dtype=np.int64).reshape(-1, 3),
        np.array([row[4] for row in rows], dtype=bool),
    )
