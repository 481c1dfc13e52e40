"""Parcels into a store and out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.exchange.parcel import JudgedBy, Judgment, Parcel
from dadpo_bench.judging.judgments import judge_key
from dadpo_bench.open_board import open_protocol
from dadpo_bench.panels import BASELINES
from dadpo_bench.scores import save_scores
from dadpo_bench.store import Store, insert_missing, save_task, schema
from dadpo_bench.store.judgments import keep_judgments
from dadpo_bench.store.rows import contestant_row, response_row, to_prompt, to_response, upsert
from dadpo_bench.tasks import Task
from dadpo_bench.types import Asked, Outcome, Prompt, Rating, Response, Verdict, content_key

_IMPORTED = "imported"


class Kept(NamedTuple):
    """What a store holds of a parcel now."""

    task: str
    prompts: int
    baseline: str
    contestants: dict[str, int]
    """Responses of each, the baseline's among them."""
    judged: dict[str, int]
    """Judgments by judge."""
    unscored: int
    remarks: tuple[str, ...]


def keep(store: Store, parcel: Parcel) -> Kept:
    """Put a parcel into a store, all of it or nothing, and score it; judgments that are there stay as they are."""
    protocol = open_protocol(parcel.task.name, parcel.baseline)
    judges = {judge_key(_IMPORTED, judge.identity): judge for judge in parcel.judged}
    with store.write() as session:
        task, prompts = _aligned(session, parcel.task)
        save_task(session, task)
        insert_missing(session, schema.Protocol, [protocol])
        keys: dict[tuple[str, str], str] = {}
        for name, responses in parcel.responses.items():
            kind = BASELINES[-1] if name == parcel.baseline else "entrant"
            own = {prompt: r.model_copy(update={"prompt": prompts[prompt]}) for prompt, r in responses.items()}
            keys |= keep_contestant(session, protocol["key"], task, name, kind, own)
        for key, judge in judges.items():
            row = {"key": key, "name": judge.name[:200], "kind": judge.kind, "proxy": False}
            insert_missing(session, schema.Judge, [{**row, "identity": dict(judge.identity)}])
            _keep_judgments(session, key, judge, keys, parcel.baseline)
    for key in judges:
        save_scores(store, protocol["key"], key)
    said = [judgment.said for judge in parcel.judged for judgment in judge.judgments]
    return Kept(
        task.name,
        len(parcel.task.prompts),
        parcel.baseline,
        {name: len(given) for name, given in parcel.responses.items()},
        {judge.name: len(judge.judgments) for judge in parcel.judged},
        sum((one.value if isinstance(one, Rating) else one.worth) is None for one in said),
        tuple(parcel.remarks),
    )


def _aligned(session: Session, task: Task) -> tuple[Task, dict[str, Prompt]]:
    """The store's own task of that name that asks all of this, if there is one; and by key of a prompt, its own.

    Files may leave out what a task knows besides: categories, references, the prompts that nobody answered.
    """
    asked = {(p.system, p.turns): p.key for p in task.prompts}
    known = select(schema.Task).where(schema.Task.name == task.name, schema.Task.split == task.split)
    for row in session.scalars(known.order_by(schema.Task.key)):
        theirs = _prompts(session, row.key)
        own = {asked[p.system, p.turns]: p for p in theirs if (p.system, p.turns) in asked}
        if len(own) == len(asked):
            return Task(name=row.name, domain=row.domain, split=row.split, prompts=tuple(theirs)), own
    return task, {p.key: p for p in task.prompts}


def _prompts(session: Session, task_key: str) -> list[Prompt]:
    query = (
        select(schema.Prompt, schema.TaskPrompt.prompt_id, schema.TaskPrompt.category)
        .join(schema.TaskPrompt, schema.TaskPrompt.prompt_key == schema.Prompt.key)
        .where(schema.TaskPrompt.task_key == task_key)
        .order_by(schema.TaskPrompt.position)
    )
    return [to_prompt(*row) for row in session.execute(query)]


def keep_contestant(
    session: Session, protocol_key: str, task: Task, name: str, kind: str, responses: Mapping[str, Response]
) -> dict[tuple[str, str], str]:
    """Note a contestant that was not made here and its answers; returns the key of each response, by name and key of
    `responses`, which is that of the prompt in a file.
    """
    model_key = content_key(_IMPORTED, name)
    contestant = contestant_row(protocol_key, name, kind, None, {}, model_key)
    upsert(session, schema.Contestant, [contestant])
    keys, rows = {}, []
    for prompt, response in responses.items():
        key = content_key(_IMPORTED, name, response.prompt.key, [reply.text for reply in response.replies])
        keys[name, prompt] = key
        rows.append(response_row(key, response, model_key, model_key))
    insert_missing(session, schema.Response, rows)
    place = {"contestant_key": contestant["key"], "task_key": task.key}
    answers = [{**place, "prompt_key": r.prompt.key, "response_key": keys[name, p]} for p, r in responses.items()]
    upsert(session, schema.Answer, answers)
    return keys


def _keep_judgments(
    session: Session, key: str, judge: JudgedBy, responses: Mapping[tuple[str, str], str], baseline: str
) -> None:
    rows = []
    for judgment in judge.judgments:
        ours = responses[judgment.contestant, judgment.prompt]
        place = {"response_key": ours}
        if judge.kind == "pairwise":
            theirs = responses[baseline, judgment.prompt]
            place = {"contestant_response": ours, "baseline_response": theirs, "order": judgment.order}
        rows.append({"judge_key": key, "asked": datetime.now(UTC), **place, **judgment.said.model_dump(mode="json")})
    if rows:
        keep_judgments(session, schema.Verdict if judge.kind == "pairwise" else schema.Rating, rows)


_Answered = Mapping[str, Mapping[str, tuple[str, Response]]]
"""By contestant's name and prompt's key: the response, and its key."""


def gather(store: Store, *, task: str | None, judge: str | None, contestants: Sequence[str] = ()) -> Parcel:
    """What a store holds of one task: every contestant's answers, and what one judge, or every one, said of them.

    Of a trained contestant each seed is a contestant of its own. Raises `UserError` where the store has no such
    task, judge or contestant, or several boards have that task.
    """
    with store.read() as session:
        protocol, row = _board(session, task)
        prompts = _prompts(session, row.key)
        standing = session.scalars(
            select(schema.Contestant)
            .where(schema.Contestant.protocol_key == protocol, schema.Contestant.kind != "canary")
            .order_by(schema.Contestant.name, schema.Contestant.seed, schema.Contestant.key)
        ).all()
        names = _names(standing)
        if unknown := set(contestants) - set(names):
            raise UserError(registry.unknown("contestant", min(unknown), sorted(names)))
        baseline = next((name for name, c in zip(names, standing, strict=True) if c.kind in BASELINES), "")
        wanted = {name: c for name, c in zip(names, standing, strict=True) if not contestants or name in contestants}
        wanted |= {name: c for name, c in zip(names, standing, strict=True) if name == baseline}
        answered = {name: _answers(session, c.key, row.key, prompts) for name, c in sorted(wanted.items())}
        found = Task(name=row.name, domain=row.domain, split=row.split, prompts=tuple(prompts))
        return Parcel(
            found,
            {name: {p: response for p, (_, response) in given.items()} for name, given in answered.items() if given},
            baseline if answered.get(baseline) else "",
            [_judged(session, each, answered, baseline) for each in _judges(session, protocol, judge)],
        )


def _board(session: Session, name: str | None) -> tuple[str, schema.Task]:
    """(protocol's key, task) of the one board that has the task, or has one at all."""
    query = (
        select(schema.Contestant.protocol_key, schema.Protocol.name, schema.Task)
        .join(schema.Answer, schema.Answer.contestant_key == schema.Contestant.key)
        .join(schema.Task, schema.Task.key == schema.Answer.task_key)
        .join(schema.Protocol, schema.Protocol.key == schema.Contestant.protocol_key)
        .distinct()
    )
    boards = sorted(session.execute(query).all(), key=lambda b: (b[2].name, b[1], b[0]))
    fitting = [(protocol, title, task) for protocol, title, task in boards if name in (None, task.name)]
    if not fitting:
        raise UserError(registry.unknown("task", name or "", sorted({task.name for *_, task in boards})))
    if len(fitting) > 1:
        which = "; ".join(f"{task.name} ({title})" for _, title, task in fitting)
        raise UserError(
            f"several boards: {which}; name one with --task" if name is None else f"several boards: {which}"
        )
    return fitting[0][0], fitting[0][2]


def _names(contestants: Sequence[schema.Contestant]) -> list[str]:
    """A name each: with the seed where several have the same, with the key where that is not enough."""
    plain = [c.name for c in contestants]
    seeded = [c.name if plain.count(c.name) == 1 or c.seed is None else f"{c.name}-seed{c.seed}" for c in contestants]
    return [
        name if seeded.count(name) == 1 else f"{name}-{c.key[:6]}" for name, c in zip(seeded, contestants, strict=True)
    ]


def _answers(
    session: Session, contestant_key: str, task_key: str, prompts: Sequence[Prompt]
) -> dict[str, tuple[str, Response]]:
    query = (
        select(schema.Response)
        .join(schema.Answer, schema.Answer.response_key == schema.Response.key)
        .where(schema.Answer.contestant_key == contestant_key, schema.Answer.task_key == task_key)
    )
    given = {row.prompt_key: row for row in session.scalars(query)}
    return {p.key: (given[p.key].key, to_response(given[p.key], p)) for p in prompts if p.key in given}


def _judges(session: Session, protocol: str, name: str | None) -> list[schema.Judge]:
    """Who made the board's scores; the one of that name, or each."""
    query = (
        select(schema.Judge)
        .join(schema.Score, schema.Score.judge_key == schema.Judge.key)
        .where(schema.Score.protocol_key == protocol)
        .distinct()
    )
    judges = sorted(session.scalars(query), key=lambda j: (j.name, j.key))
    found = [judge for judge in judges if name in (None, judge.name)]
    if name and not found:
        raise UserError(registry.unknown("judge", name, [judge.name for judge in judges]))
    return found


def _judged(session: Session, judge: schema.Judge, answered: _Answered, baseline: str) -> JudgedBy:
    """What the judge said of these responses, in the order of contestants and prompts."""
    judgments: list[Judgment] = []
    if judge.kind == "pairwise":
        verdicts: dict[tuple[str, str], list[schema.Verdict]] = {}
        for verdict in session.scalars(select(schema.Verdict).where(schema.Verdict.judge_key == judge.key)):
            verdicts.setdefault((verdict.contestant_response, verdict.baseline_response), []).append(verdict)
        for name, given in answered.items():
            for prompt, (key, _) in given.items():
                theirs = answered[baseline].get(prompt, ("",))[0] if baseline and name != baseline else ""
                for row in sorted(verdicts.get((key, theirs), ()), key=lambda v: v.order):
                    said = Verdict(outcome=Outcome(row.outcome), preference=row.preference, **_asked(row))
                    judgments.append(Judgment(name, prompt, said, "ab" if row.order == "ab" else "ba"))
    else:
        ratings = {r.response_key: r for r in session.scalars(_ratings(judge))}
        for name, given in answered.items():
            for prompt, (key, _) in given.items():
                if rating := ratings.get(key):
                    rated = Rating(value=rating.value, by_turn=tuple(rating.by_turn), **_asked(rating))
                    judgments.append(Judgment(name, prompt, rated))
    kind: Any = judge.kind
    return JudgedBy(judge.name, kind, judge.identity, judgments)


def _ratings(judge: schema.Judge) -> Any:
    return select(schema.Rating).where(schema.Rating.judge_key == judge.key)


def _asked(row: schema.Rating | schema.Verdict) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Asked.model_fields}
