"""Parcels into a store and out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, or_, select, update
from sqlalchemy.orm import Session, aliased

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.exchange.parcel import JudgedBy, Judgment, Parcel, Who
from dadpo_bench.judging.judgments import judge_key, told_apart
from dadpo_bench.open_board import open_baseline, open_protocol
from dadpo_bench.panels import BASELINES
from dadpo_bench.progress import Reporter, silent
from dadpo_bench.scores import save_scores
from dadpo_bench.store import Store, insert_missing, save_task, schema
from dadpo_bench.store.judgments import keep_judgments
from dadpo_bench.store.rows import contestant_row, response_row, task_prompt_rows, to_prompt, to_response, upsert
from dadpo_bench.tasks import Task
from dadpo_bench.types import Asked, Outcome, Prompt, Rating, Response, Verdict, content_key

_IMPORTED = "imported"


class Kept(NamedTuple):
    """What a store holds of a parcel now."""

    task: str
    prompts: int
    baseline: str
    contestants: dict[str, int]
    """Responses of each, of all its seeds, the baseline's among them."""
    judged: dict[str, int]
    """Judgments by judge."""
    unscored: int
    differing: int
    """Judgments that differ from the stored ones, which stay."""
    remarks: tuple[str, ...]


def keep(store: Store, parcel: Parcel, reporter: Reporter | None = None) -> Kept:
    """Put a parcel into a store, all of it or nothing, and score it; judgments that are there stay as they are.

    Raises `UserError` where the store has another answer of somebody, two prompts of the parcel are equal, or nothing
    tells two judges apart.
    """
    protocol = open_protocol(parcel.task.name, parcel.who(parcel.baseline).name)
    judges = _by_key(parcel.judged)
    contestants: Counter[str] = Counter()
    differing = 0
    bar = (reporter or silent()).bar
    with (
        bar("keep", len(parcel.responses), "contestants") as answered,
        bar("keep", len(judges), "judges") as heard,
        store.write() as session,
    ):
        insert_missing(session, schema.Protocol, [protocol])
        scored = {judge.key for judge in session.scalars(scorers(protocol["key"]))}
        task, prompts = settled(session, protocol["key"], parcel.task)
        keys: dict[tuple[str, str], str] = {}
        for name, responses in parcel.responses.items():
            who = parcel.who(name)
            kind = BASELINES[-1] if name == parcel.baseline else "method" if who.trained else "entrant"
            own = {prompt: r.model_copy(update={"prompt": prompts[prompt]}) for prompt, r in responses.items()}
            kept = keep_contestant(session, protocol["key"], task, who, kind, own)
            keys |= {(name, prompt): key for prompt, key in kept.items()}
            contestants[who.name] += len(kept)
            answered.advance()
        for key, judge in judges.items():
            row = {"key": key, "name": judge.name, "kind": judge.kind, "proxy": judge.proxy, "identity": judge.identity}
            insert_missing(session, schema.Judge, [row])
            if (known := session.get_one(schema.Judge, key)).kind != judge.kind:
                raise UserError(f"judge '{judge.name}' is {judge.kind}; the store knows it as {known.kind}")
            differing += _keep_judgments(session, key, judge, keys, parcel.baseline)
            heard.advance()
    sections = sorted(scored | set(judges))
    with bar("score", len(sections), "judges") as done:
        for key in sections:
            save_scores(store, protocol["key"], key)
            done.advance()
    said = [judgment.said for judge in parcel.judged for judgment in judge.judgments]
    return Kept(
        task.name,
        len(task.prompts),
        parcel.who(parcel.baseline).name,
        dict(contestants),
        {judge.name: len(judge.judgments) for judge in parcel.judged},
        sum(_figures(one)[0] is None for one in said),
        differing,
        tuple(parcel.remarks),
    )


def _by_key(judged: Sequence[JudgedBy]) -> dict[str, JudgedBy]:
    """Judges by their keys here. What the members of a panel said is not in a parcel, so a hash stands for them."""
    found: dict[str, JudgedBy] = {}
    for judge in judged:
        identity = {name: value for name, value in judge.identity.items() if name != "panel"}
        if "panel" in judge.identity:
            identity["imported_panel"] = content_key(judge.identity["panel"])
        key = judge_key(_IMPORTED, identity)
        if key in found:
            raise UserError(
                f"judges '{found[key].name}' and '{judge.name}' have one identity: nothing tells them apart"
            )
        found[key] = judge._replace(identity=identity)
    return found


def settled(session: Session, protocol_key: str, task: Task) -> tuple[Task, dict[str, Prompt]]:
    """A board's task of this name and split, grown by what this one knows besides; and by key of a prompt, the board's.

    Files may leave out what others tell: categories, references, prompts that their contestants did not answer. What
    the board's contestants answered moves along. Prompts are the same where they ask the same. Raises `UserError`
    where two prompts of the task do.
    """
    grown = task
    if len(_by_text(task)) < len(task.prompts):
        times = Counter(p.asks for p in task.prompts)
        *_, again = (p for p in task.prompts if times[p.asks] > 1)
        raise UserError(f"task '{task.name}': two prompts ask the same, the second is '{again.id}'")
    standing = select(schema.Contestant.key).where(schema.Contestant.protocol_key == protocol_key)
    answered = select(schema.Answer.task_key).where(schema.Answer.contestant_key.in_(standing))
    rows = session.scalars(
        select(schema.Task)
        .where(or_(schema.Task.key.in_(answered), schema.Task.key == task.key))
        .where(schema.Task.name == task.name, schema.Task.split == task.split)
        .order_by(schema.Task.key)
    ).all()
    before = [
        (row.key, Task(name=row.name, domain=row.domain, split=row.split, prompts=_prompts(session, row.key)))
        for row in rows
    ]
    for _, known in before:
        grown = _grown(known, grown)
    save_task(session, grown)
    upsert(session, schema.TaskPrompt, task_prompt_rows(grown))
    own = _by_text(grown)
    for key, known in before:
        if key == grown.key:
            continue
        place = update(schema.Answer).where(schema.Answer.contestant_key.in_(standing), schema.Answer.task_key == key)
        for p in known.prompts:
            if (now := own[p.asks].key) != p.key:
                session.execute(place.where(schema.Answer.prompt_key == p.key).values(prompt_key=now))
        _drop_repeated(session, protocol_key, key, grown.key)
        session.execute(place.values(task_key=grown.key))
        kl = update(schema.ContestantDivergence).where(schema.ContestantDivergence.contestant_key.in_(standing))
        session.execute(kl.where(schema.ContestantDivergence.task_key == key).values(task_key=grown.key))
        _move_scores(session, protocol_key, key, grown.key)
    return grown, {p.key: own[p.asks] for p in task.prompts}


def join_tasks(session: Session, protocol_key: str) -> None:
    """Make one task of those of one name and split that a board has since two stores were merged; see `settled`."""
    query = (
        select(schema.Task)
        .join(schema.Answer, schema.Answer.task_key == schema.Task.key)
        .join(schema.Contestant, schema.Contestant.key == schema.Answer.contestant_key)
        .where(schema.Contestant.protocol_key == protocol_key)
        .order_by(schema.Task.key)
        .distinct()
    )
    apart: dict[tuple[str, str], list[schema.Task]] = {}
    for row in session.scalars(query):
        apart.setdefault((row.name, row.split), []).append(row)
    for first, *others in apart.values():
        if others:
            prompts = _prompts(session, first.key)
            settled(
                session, protocol_key, Task(name=first.name, domain=first.domain, split=first.split, prompts=prompts)
            )


def _drop_repeated(session: Session, protocol_key: str, before: str, now: str) -> None:
    """Of what is to move from one task to another, drop what is there already: answers, KL.

    Raises `UserError` where somebody answered otherwise there.
    """
    moving, there = aliased(schema.Answer), aliased(schema.Answer)
    places = (moving.contestant_key == there.contestant_key, moving.prompt_key == there.prompt_key)
    answers = (
        select(moving, there.response_key, schema.Contestant.name)
        .join(there, and_(*places))
        .join(schema.Contestant, schema.Contestant.key == moving.contestant_key)
        .where(moving.task_key == before, there.task_key == now, schema.Contestant.protocol_key == protocol_key)
    )
    for answer, response_key, name in session.execute(answers).all():
        if answer.response_key != response_key:
            raise UserError(f"the board has two answers of '{name}' to one prompt; give one of them another name")
        session.delete(answer)
    old, new = aliased(schema.ContestantDivergence), aliased(schema.ContestantDivergence)
    measured = select(old).join(new, old.contestant_key == new.contestant_key)
    for divergence in session.scalars(measured.where(old.task_key == before, new.task_key == now)).all():
        session.delete(divergence)
    session.flush()


def asked_on(session: Session, protocol_key: str) -> set[tuple[str, tuple[str, ...]]]:
    """What the prompts ask that a board's contestants answered."""
    answered = (
        select(schema.Answer.prompt_key)
        .join(schema.Contestant, schema.Contestant.key == schema.Answer.contestant_key)
        .where(schema.Contestant.protocol_key == protocol_key)
    )
    prompts = session.scalars(select(schema.Prompt).where(schema.Prompt.key.in_(answered)))
    return {to_prompt(row).asks for row in prompts}


def _move_scores(session: Session, protocol_key: str, before: str, now: str) -> None:
    """Rows move along, stale until whoever grew the task has scored it: they tell which judges to ask for that."""

    def of(task_key: str) -> Select[schema.Score]:
        return select(schema.Score).filter_by(protocol_key=protocol_key, task_key=task_key)

    there = {(row.judge_key, row.baseline, row.contestant) for row in session.scalars(of(now))}
    for row in session.scalars(of(before)).all():
        if (row.judge_key, row.baseline, row.contestant) in there:
            session.delete(row)
        else:
            row.task_key = now


def _by_text(task: Task) -> dict[tuple[str, tuple[str, ...]], Prompt]:
    return {p.asks: p for p in task.prompts}


def _grown(known: Task, new: Task) -> Task:
    """The known task with the new one's prompts behind its own; in the new one's order where that has all of them."""
    theirs, ours = _by_text(known), _by_text(new)
    order = ours if theirs.keys() <= ours.keys() else theirs | ours
    fields = ("id", "category", "reference", "checklist")
    prompts = []
    for text in order:
        both = [p for p in (theirs.get(text), ours.get(text)) if p is not None]
        told = {
            name: next((value for p in both if (value := getattr(p, name))), getattr(both[0], name)) for name in fields
        }
        prompts.append(both[0].model_copy(update=told))
    return known.model_copy(update={"prompts": tuple(prompts)})


def _prompts(session: Session, task_key: str) -> tuple[Prompt, ...]:
    query = (
        select(schema.Prompt, schema.TaskPrompt.prompt_id, schema.TaskPrompt.category)
        .join(schema.TaskPrompt, schema.TaskPrompt.prompt_key == schema.Prompt.key)
        .where(schema.TaskPrompt.task_key == task_key)
        .order_by(schema.TaskPrompt.position)
    )
    return tuple(to_prompt(*row) for row in session.execute(query))


def keep_contestant(
    session: Session, protocol_key: str, task: Task, who: Who, kind: str, responses: Mapping[str, Response]
) -> dict[str, str]:
    """Note a contestant that was not made here and its answers.

    Returns the key of each response, by key of `responses`, which is that of the prompt in a file. Raises `UserError`
    where the board has other answers of it.
    """
    name, apart = who.name, [who.seed, dict(who.settings)] if who.seed is not None or who.settings else []
    model_key = content_key(_IMPORTED, name, *apart)
    contestant = contestant_row(protocol_key, name, kind, who.seed, {}, model_key)
    if who.settings:  # whose method may be unknown here
        contestant |= {"key": content_key(contestant["key"], dict(who.settings)), "settings": dict(who.settings)}
    upsert(session, schema.Contestant, [contestant])
    keys, rows = {}, []
    for prompt, response in responses.items():
        replies = [reply.text for reply in response.replies]
        keys[prompt] = content_key(_IMPORTED, name, *apart, *response.prompt.asks, replies)
        rows.append(response_row(keys[prompt], response, model_key, model_key))
    insert_missing(session, schema.Response, rows)
    place = {"contestant_key": contestant["key"], "task_key": task.key}
    answers = [{**place, "prompt_key": r.prompt.key, "response_key": keys[p]} for p, r in responses.items()]
    before = {
        answer.prompt_key: answer.response_key for answer in session.scalars(select(schema.Answer).filter_by(**place))
    }
    for answer in answers:
        if before.get(answer["prompt_key"], answer["response_key"]) != answer["response_key"]:
            raise UserError(
                f"the board has other answers of '{name}'; give these another name, or choose another --store"
            )
    insert_missing(session, schema.Answer, answers)
    if who.kl:
        row = {**place, **dict(zip(("from_teacher", "to_teacher"), who.kl, strict=True))}
        insert_missing(session, schema.ContestantDivergence, [row])
    return keys


def _keep_judgments(
    session: Session, key: str, judge: JudgedBy, responses: Mapping[tuple[str, str], str], baseline: str
) -> int:
    """Keep what a judge said; returns how often the store has another answer of it, which stays."""
    stored = _stored(session, key, judge.kind)
    rows, differing = [], 0
    for judgment in judge.judgments:
        ours = responses[judgment.contestant, judgment.prompt]
        place = {"response_key": ours}
        if judge.kind == "pairwise":
            theirs = responses[baseline, judgment.prompt]
            place = {"contestant_response": ours, "baseline_response": theirs, "order": judgment.order}
        figures = _figures(judgment.said)
        differing += stored.get(tuple(place.values()), figures) != figures
        asked = judgment.asked or datetime.now(UTC)
        rows.append({"judge_key": key, "asked": asked, **place, **judgment.said.model_dump(mode="json")})
    if rows:
        keep_judgments(session, schema.Verdict if judge.kind == "pairwise" else schema.Rating, rows)
    return differing


def _figures(said: Verdict | Rating) -> tuple[float | None, ...]:
    return (said.value, *said.by_turn) if isinstance(said, Rating) else (said.worth,)


def _stored(session: Session, judge_key: str, kind: str) -> dict[tuple[str, ...], tuple[float | None, ...]]:
    """What a judge scored, by the rest of its key: figures that nothing replaces."""
    if kind == "pairwise":
        v = schema.Verdict
        query = select(v.contestant_response, v.baseline_response, v.order, v.outcome, v.preference)
        rows = session.execute(query.where(v.judge_key == judge_key, v.outcome != str(Outcome.unscored)))
        return {(*place,): (Outcome(outcome).worth(preference),) for *place, outcome, preference in rows}
    r = schema.Rating
    rated = session.execute(select(r.response_key, r.value, r.by_turn).where(r.judge_key == judge_key))
    return {(key,): (value, *by_turn) for key, value, by_turn in rated if value is not None}


_Answered = Mapping[str, Mapping[str, tuple[str, Response]]]
"""By contestant's name and prompt's key: the response, and its key."""


def gather(
    store: Store, *, task: str | None, judge: str | None, contestants: Sequence[str] = (), board: str | None = None
) -> Parcel:
    """What a store holds of one task: every contestant's answers, and what one judge, or every one, said of them.

    Each seed of a trained contestant has a name of its own; `known` tells what they share. Judges of one name show the
    beginning of their key. `judge` and `contestants` take these names and those of boards; `board` is a board's title,
    or how its key begins. Not carried: canaries, and all that is known of models and runs (weights, training records,
    signals, sampling, the members of a panel, what `judge-eval` found).

    Raises `UserError` where the store has no such task, board, judge or contestant, or several boards are meant.
    """
    with store.read() as session:
        protocol, row = _board(session, task, board)
        prompts = _prompts(session, row.key)
        standing = session.scalars(
            select(schema.Contestant)
            .where(schema.Contestant.protocol_key == protocol, schema.Contestant.kind != "canary")
            .order_by(schema.Contestant.name, schema.Contestant.seed, schema.Contestant.key)
        ).all()
        named = dict(zip(_names(standing), standing, strict=True))
        if unknown := set(contestants) - set(named) - {c.name for c in standing}:
            raise UserError(registry.unknown("contestant", min(unknown), sorted(named)))
        standard = next((name for name, c in named.items() if c.kind in BASELINES), "")
        baseline = standard or open_baseline(session.get_one(schema.Protocol, protocol).settings)
        asked_for = {name for name, c in named.items() if not contestants or {name, c.name} & set(contestants)}
        wanted = {name: c for name, c in named.items() if name in {*asked_for, baseline}}
        answered = {name: _answers(session, c.key, row.key, prompts) for name, c in sorted(wanted.items())}
        found = Task(name=row.name, domain=row.domain, split=row.split, prompts=prompts)
        return Parcel(
            found,
            {name: {p: response for p, (_, response) in given.items()} for name, given in answered.items() if given},
            baseline,
            [_judged(session, called, each, answered, baseline) for called, each in _judges(session, protocol, judge)],
            known={name: _who(session, c, row.key) for name, c in wanted.items() if name != baseline},
        )


def _board(session: Session, name: str | None, title: str | None) -> tuple[str, schema.Task]:
    """(protocol's key, task) of the one board that is meant, or that there is."""
    query = (
        select(schema.Contestant.protocol_key, schema.Protocol.name, schema.Task)
        .join(schema.Answer, schema.Answer.contestant_key == schema.Contestant.key)
        .join(schema.Task, schema.Task.key == schema.Answer.task_key)
        .join(schema.Protocol, schema.Protocol.key == schema.Contestant.protocol_key)
        .distinct()
    )
    boards = sorted(session.execute(query).all(), key=lambda b: (b[2].name, b[1], b[0]))
    if not boards:
        raise UserError("the store has no answers to export")
    if name is not None and name not in (known := sorted({task.name for *_, task in boards})):
        raise UserError(registry.unknown("task", name, known))
    fitting = [
        b for b in boards if name in (None, b[2].name) and (title is None or title == b[1] or b[0].startswith(title))
    ]
    if not fitting and title is not None:
        raise UserError(registry.unknown("board", title, sorted({board for _, board, _ in boards})))
    if len(fitting) > 1:
        which = "; ".join(f"{task.name} on '{board}' ({key[:6]})" for key, board, task in fitting)
        raise UserError(f"several boards: {which}; choose with --task, or --board and a title or a key")
    return fitting[0][0], fitting[0][2]


def _names(contestants: Sequence[schema.Contestant]) -> list[str]:
    """A name each: with the seed where several have the same, with the key where that is not enough."""
    plain = [c.name for c in contestants]
    seeded = [
        c.name if plain.count(c.name) == 1 or c.seed is None else f"{c.name[:180]}-seed{c.seed}" for c in contestants
    ]
    return [
        name if seeded.count(name) == 1 else f"{name[:193]}-{c.key[:6]}"
        for name, c in zip(seeded, contestants, strict=True)
    ]


def _who(session: Session, contestant: schema.Contestant, task_key: str) -> Who:
    found = session.get(schema.ContestantDivergence, (contestant.key, task_key))
    return Who(
        contestant.name,
        contestant.kind == "method",
        contestant.seed,
        contestant.settings,
        (found.from_teacher, found.to_teacher) if found else None,
    )


def _answers(
    session: Session, contestant_key: str, task_key: str, prompts: Sequence[Prompt]
) -> dict[str, tuple[str, Response]]:
    query = (
        select(schema.Answer.prompt_key, schema.Response)
        .join(schema.Answer, schema.Answer.response_key == schema.Response.key)
        .where(schema.Answer.contestant_key == contestant_key, schema.Answer.task_key == task_key)
    )
    given = {row.prompt_key: row.Response for row in session.execute(query)}
    return {p.key: (given[p.key].key, to_response(given[p.key], p)) for p in prompts if p.key in given}


def _judges(session: Session, protocol: str, name: str | None) -> list[tuple[str, schema.Judge]]:
    """Who made the board's scores, told apart; those of that name, or each."""
    judges = sorted(session.scalars(scorers(protocol)), key=lambda j: (j.name, j.key))
    called = list(zip(told_apart(judges), judges, strict=True))
    found = [(apart, judge) for apart, judge in called if name in (None, apart, judge.name)]
    if name and not found:
        raise UserError(registry.unknown("judge", name, [apart for apart, _ in called]))
    return found


def scorers(protocol: str) -> Select[schema.Judge]:
    """Judges by whom a board has scores."""
    scored = select(schema.Score.judge_key).where(schema.Score.protocol_key == protocol)
    return select(schema.Judge).where(schema.Judge.key.in_(scored))


def _judged(session: Session, called: str, judge: schema.Judge, answered: _Answered, baseline: str) -> JudgedBy:
    """What the judge said of these responses, in the order of contestants and prompts."""
    judgments: list[Judgment] = []
    if judge.kind == "pairwise":
        verdicts: dict[tuple[str, str], list[schema.Verdict]] = {}
        for verdict in session.scalars(select(schema.Verdict).where(schema.Verdict.judge_key == judge.key)):
            verdicts.setdefault((verdict.contestant_response, verdict.baseline_response), []).append(verdict)
        met = answered.get(baseline, {})
        for name, given in answered.items():
            for prompt, (key, _) in given.items():
                theirs = met.get(prompt, ("",))[0] if name != baseline else ""
                for row in sorted(verdicts.get((key, theirs), ()), key=lambda v: v.order):
                    said = Verdict(outcome=Outcome(row.outcome), preference=row.preference, **_asked(row))
                    judgments.append(Judgment(name, prompt, said, "ab" if row.order == "ab" else "ba", _utc(row.asked)))
    else:
        ratings = {r.response_key: r for r in session.scalars(_ratings(judge))}
        for name, given in answered.items():
            for prompt, (key, _) in given.items():
                if rating := ratings.get(key):
                    rated = Rating(value=rating.value, by_turn=tuple(rating.by_turn), **_asked(rating))
                    judgments.append(Judgment(name, prompt, rated, asked=_utc(rating.asked)))
    kind: Any = judge.kind
    return JudgedBy(called, kind, judge.identity, judgments, judge.proxy)


def _ratings(judge: schema.Judge) -> Any:
    return select(schema.Rating).where(schema.Rating.judge_key == judge.key)


def _utc(asked: datetime | None) -> datetime | None:
    """SQLite keeps no time zone."""
    return asked and (asked.astimezone(UTC) if asked.tzinfo else asked.replace(tzinfo=UTC))


def _asked(row: schema.Rating | schema.Verdict) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Asked.model_fields}
