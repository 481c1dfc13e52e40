"""From stored answers, ratings and verdicts to the rows of a board. Percent, nats and characters."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench import scoring
from dadpo_bench.judging.judgments import Judgments, Pair, members_of
from dadpo_bench.recipe import FIRST
from dadpo_bench.store import Store, schema
from dadpo_bench.types import Finish

DRAWS = 10_000
"""Bootstrap draws behind every interval."""

SEED = 20250616
"""Seeds the bootstrap: the same store gives the same numbers."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Texts:
    """What a contestant's responses look like, whoever judges them."""

    mean_length: float
    """Characters of a response."""
    cut_share: float | None
    """Per cent of responses cut by the token limit; null for canaries, whom nothing cuts."""
    repetition: float | None
    """Per cent of a response's word 4-grams that it had said before."""


@dataclass(frozen=True)
class Divergence:
    """Nats a token between a contestant and the teacher, mean over seeds; null where not measured."""

    kl_from_teacher: float | None = None
    """KL(teacher‖contestant) on the teacher's samples."""
    kl_to_teacher: float | None = None
    """KL(contestant‖teacher) on the contestant's samples."""


@dataclass(frozen=True)
class Row:
    """A row of a board."""

    contestant: str
    task: str
    judge: str
    baseline: str
    summary: scoring.Summary
    texts: Texts
    divergence: Divergence

    def cells(self) -> dict[str, Any]:
        """The row as it is stored and printed: every column by its name."""
        who = {name: getattr(self, name) for name in ("contestant", "task", "judge", "baseline")}
        return {**who, **asdict(self.summary), **asdict(self.texts), **asdict(self.divergence)}


@dataclass(frozen=True)
class Entrant:
    """A contestant over its seeds."""

    label: str
    kind: str
    contestants: tuple[schema.Contestant, ...]


class Panel:
    """One judge's view of one task under one protocol: outcomes of every entrant against a baseline."""

    def __init__(self, session: Session, protocol_key: str, judge: schema.Judge, task: schema.Task) -> None:
        self._session, self._judge, self.task = session, judge, task
        query = (
            select(schema.TaskPrompt.prompt_key)
            .where(schema.TaskPrompt.task_key == task.key)
            .order_by(schema.TaskPrompt.position)
        )
        self.prompts: list[str] = list(session.scalars(query))
        everyone = session.scalars(
            select(schema.Contestant)
            .where(schema.Contestant.protocol_key == protocol_key)
            .order_by(schema.Contestant.name, schema.Contestant.seed, schema.Contestant.key)
        ).all()
        self._answers = self._read_answers([c.key for c in everyone])
        self._teacher = next((c for c in everyone if c.kind == "teacher"), None)
        self._used = {response for given in self._answers.values() for response in given.values()}
        self.judgments = Judgments(session, judge, self._used)
        self.entrants = entrants([c for c in everyone if c is self._teacher or self._was_judged(c)])

    def _read_answers(self, keys: Sequence[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = defaultdict(dict)
        known = set(keys)
        query = select(schema.Answer).where(schema.Answer.task_key == self.task.key)
        for row in self._session.scalars(query):
            if row.contestant_key in known:
                found[row.contestant_key][row.prompt_key] = row.response_key
        return found

    def _was_judged(self, contestant: schema.Contestant) -> bool:
        """False for one whom a run was stopped before judging: never asked is not unscored."""
        return not self.judgments.asked.isdisjoint(self._answers.get(contestant.key, {}).values())

    def orders(self, entrant: Entrant) -> Floats:
        """(seeds, prompts, orders) outcomes in [0, 1] against the entrant's baseline, NaN where unscored.

        Canaries meet dSFT of their own seed, everybody else the teacher, who meets nobody; prompts that a
        canary was not given are left out.
        """
        prompts = self._asked(entrant)
        pairs = self._pairs(entrant)
        outcomes = self.judgments.outcomes(list(pairs.values()))
        result = np.full((len(entrant.contestants), len(prompts), outcomes.shape[1]), np.nan)
        for cell, given in zip(pairs, outcomes, strict=True):
            result[cell] = given
        return result

    def _asked(self, entrant: Entrant) -> list[str]:
        """Prompts on which it meets its baseline."""
        prompts = [] if entrant.kind == "teacher" else self.prompts
        if entrant.kind == "canary":
            prompts = [p for p in prompts if p in self._answers[entrant.contestants[0].key]]
        return prompts

    def _pairs(self, entrant: Entrant) -> dict[tuple[int, int], Pair]:
        """What is compared, by seed and prompt."""
        pairs: dict[tuple[int, int], Pair] = {}
        for s, contestant in enumerate(entrant.contestants):
            ours, theirs = self._answers[contestant.key], self._answers.get(self._baseline(contestant), {})
            for p, prompt in enumerate(self._asked(entrant)):
                if prompt in ours and prompt in theirs:
                    pairs[s, p] = ours[prompt], theirs[prompt]
        return pairs

    @cached_property
    def members(self) -> list[tuple[schema.Judge, Judgments]]:
        """Where several judges decide together: each, and what it said of the same responses."""
        members = members_of(self._session, self._judge)
        return [(member, Judgments(self._session, member, self._used)) for member in members]

    def said_by_members(self) -> Floats:
        """(members, comparisons) outcomes of all contestants but the canaries, on which it is easy to agree."""
        everyone = (e for e in self.entrants if e.kind != "canary")
        pairs = list(dict.fromkeys(pair for entrant in everyone for pair in self._pairs(entrant).values()))
        return np.array([scoring.prompt_outcomes(said.outcomes(pairs)) for _, said in self.members])

    def _baseline(self, contestant: schema.Contestant) -> str:
        if contestant.kind != "canary":
            return self._teacher.key if self._teacher else ""
        return next(
            (
                c.key
                for e in self.entrants
                for c in e.contestants
                if e.kind == "method" and c.name == FIRST and c.seed == contestant.seed
            ),
            "",
        )

    def row(self, entrant: Entrant) -> Row:
        """The entrant's row."""
        orders = self.orders(entrant)
        counts = scoring.bootstrap_counts(orders.shape[1], DRAWS, SEED)
        return Row(
            contestant=entrant.label,
            task=self.task.name,
            judge=self._judge.name,
            baseline=FIRST if entrant.kind == "canary" else "teacher",
            summary=scoring.summarise(orders, counts, seed=SEED),
            texts=self._texts(entrant),
            divergence=self._divergence(entrant),
        )

    def _texts(self, entrant: Entrant) -> Texts:
        keys = [k for c in entrant.contestants for k in self._answers[c.key].values()]
        rows = [self._session.get_one(schema.Response, key) for key in keys]
        texts = ["\n\n".join(reply["text"] for reply in row.replies) for row in rows]
        cut = [any(reply["finish"] == Finish.length for reply in row.replies) for row in rows]
        return Texts(
            mean_length=float(np.mean([len(text) for text in texts])),
            cut_share=None if entrant.kind == "canary" else 100 * float(np.mean(cut)),
            repetition=repetition(texts),
        )

    def _divergence(self, entrant: Entrant) -> Divergence:
        found = [self._session.get(schema.ContestantDivergence, (c.key, self.task.key)) for c in entrant.contestants]
        rows = [row for row in found if row is not None]
        if len(rows) < len(found):
            return Divergence()
        return Divergence(
            kl_from_teacher=float(np.mean([row.from_teacher for row in rows])),
            kl_to_teacher=float(np.mean([row.to_teacher for row in rows])),
        )


def repetition(texts: Iterable[str], size: int = 4) -> float | None:
    """Per cent of word 4-grams that occurred before in the same text; None where no text has one."""
    total = repeated = 0
    for text in texts:
        words = text.split()
        grams = Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1))
        total += sum(grams.values())
        repeated += sum(count - 1 for count in grams.values())
    return 100 * repeated / total if total else None


def entrants(contestants: Sequence[schema.Contestant], *, per_seed: bool = False) -> list[Entrant]:
    """Contestants grouped over their seeds; equal names with other settings are told apart by those."""
    by_name: dict[str, list[schema.Contestant]] = defaultdict(list)
    for contestant in contestants:
        by_name[contestant.name].append(contestant)
    result = []
    for name, same in by_name.items():
        varying = _varying([c.settings for c in same])
        groups: dict[str, list[schema.Contestant]] = defaultdict(list)
        for contestant in same:
            shown = ", ".join(f"{key}={contestant.settings.get(key)}" for key in varying)
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
    query = (
        select(schema.Task)
        .join(schema.Answer, schema.Answer.task_key == schema.Task.key)
        .join(schema.Contestant, schema.Contestant.key == schema.Answer.contestant_key)
        .where(schema.Contestant.protocol_key == protocol_key)
        .distinct()
    )
    tasks = sorted(session.scalars(query), key=lambda t: (t.domain, t.name))
    return [Panel(session, protocol_key, judge, task) for task in tasks]


def compute_rows(
    session: Session, protocol_key: str, judge_key: str, *, per_seed: bool = False
) -> list[tuple[schema.Task, Row]]:
    """Every row of a board section; but for the teacher's, rows without any judged prompt are left out."""
    return rows_of(panels(session, protocol_key, judge_key), per_seed=per_seed)


def rows_of(judged: Sequence[Panel], *, per_seed: bool = False) -> list[tuple[schema.Task, Row]]:
    """As `compute_rows`, of panels that are at hand."""
    rows = []
    for panel in judged:
        everyone = [c for e in panel.entrants for c in e.contestants]
        for entrant in entrants(everyone, per_seed=True) if per_seed else panel.entrants:
            row = panel.row(entrant)
            if row.summary.prompts or entrant.kind == "teacher":
                rows.append((panel.task, row))
    return rows


def refresh_scores(store: Store) -> None:
    """Compute every scored section of a store anew."""
    query = select(schema.Score.protocol_key, schema.Score.judge_key).distinct()
    with store.read() as session:
        scored = [tuple(found) for found in session.execute(query)]
    for protocol_key, judge_key in scored:
        save_scores(store, protocol_key, judge_key)


def save_scores(store: Store, protocol_key: str, judge_key: str) -> None:
    """Compute a section's rows anew and keep them, replacing the earlier ones."""
    with store.write() as session:
        rows = compute_rows(session, protocol_key, judge_key)
        for old in session.scalars(
            select(schema.Score).where(schema.Score.protocol_key == protocol_key, schema.Score.judge_key == judge_key)
        ):
            session.delete(old)
        session.flush()
        for task, row in rows:
            session.add(
                schema.Score(
                    protocol_key=protocol_key,
                    judge_key=judge_key,
                    task_key=task.key,
                    baseline=row.baseline,
                    contestant=row.contestant,
                    values=row.cells(),
                )
            )
