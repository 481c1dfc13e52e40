"""Which comparisons are owed, and asking a judge for them.

What stayed unscored is kept with its reason, counted as such, and owed again on the next run.
"""

from __future__ import annotations

import difflib
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.judging.judgments import judge_key, told_apart
from dadpo_bench.judging.keeping import answers, keeping
from dadpo_bench.lazily import Lazily
from dadpo_bench.recipe import explain
from dadpo_bench.registry import JudgeEntry
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.responses import Stored
from dadpo_bench.store import insert_missing, schema
from dadpo_bench.store.judgments import share_ratings
from dadpo_bench.store.rows import chunks
from dadpo_bench.types import (
    Comparison,
    JudgeContext,
    Order,
    Outcome,
    PairwiseJudge,
    PanelJudge,
    PointwiseJudge,
    Rating,
    Verdict,
    content_key,
)

Orders = Literal["both", "random"]
BOTH: tuple[Order, ...] = ("ab", "ba")

_LONGEST_NAME = 200
"""Characters of a judge's name that the store keeps; a panel's may be longer."""


def orders_of(asked: Orders, ours: str, theirs: str) -> tuple[Order, ...]:
    """The orders in which two responses are shown, given their keys: both, or one that is drawn by them."""
    if asked == "both":
        return BOTH
    return (BOTH[int(content_key("order", ours, theirs), 16) % 2],)


class OpenJudge(NamedTuple):
    """A judge ready to be asked."""

    entry: JudgeEntry
    name: str
    """As it was first asked for, e.g. `chat:gpt-4o`; a panel's is made of its members' names."""
    key: str
    judge: Any
    members: tuple[OpenJudge, ...] = ()
    """Of a panel: the judges that are asked in its place."""


def check_judge(name: str, settings: Mapping[str, Any]) -> tuple[JudgeEntry, Any]:
    """The entry and validated config of `NAME` or `NAME:ARGUMENT`; loads no model.

    Raises `UserError` for an unknown judge, a wrong setting, or an argument that the judge does not take.
    """
    base, colon, argument = name.partition(":")
    entry = registry.judges[base]
    values = dict(settings)
    if colon:
        if not entry.argument:
            raise UserError(f"judge '{base}' takes no argument; write {base}")
        values[entry.argument] = argument
    if not entry.config:
        if values:
            raise UserError(f"judge '{base}' has no settings; leave out {', '.join(sorted(values))}")
        return entry, None
    config = registry.config_class(entry, values)
    try:
        return entry, config.model_validate(values)
    except ValidationError as error:
        argument = entry.argument
        if any(found["type"] == "missing" and found["loc"] == (argument,) for found in error.errors()):
            raise UserError(f"judge '{base}' needs its {argument}: {base}:{argument.upper()}") from error
        raise UserError(_wrong(error, base, list(config.model_fields))) from error


def _wrong(error: ValidationError, judge: str, known: list[str]) -> str:
    """What is wrong with a judge's settings; a setting that only other judges have is no slip of the pen."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][-1]) if first["loc"] else ""
    if first["type"] == "extra_forbidden" and not difflib.get_close_matches(name, known, n=1):
        return f"judge '{judge}' takes no {name}; it takes {', '.join(sorted(known))}"
    return explain(error, f"judge {judge}", known)


def construct_judge(name: str, settings: Mapping[str, Any], context: JudgeContext) -> tuple[JudgeEntry, Any]:
    """The judge itself; loads no model. A missing API key is told here, before any work."""
    entry, config = check_judge(name, settings)
    return entry, registry.judges.load(entry.name)(config, context)


def voices(name: str, settings: Mapping[str, Any]) -> list[tuple[str, JudgeEntry, Any]]:
    """Who is asked questions: name, entry and config of the judge, or of each member of a panel.

    Raises as `check_judge`.
    """
    entry, config = check_judge(name, settings)
    if not hasattr(config, "members"):
        return [(name, entry, config)]
    return [(member.judge, *check_judge(member.judge, member.settings)) for member in config.members]


def note_judge(bench: Bench, name: str, entry: JudgeEntry, judge: Any) -> OpenJudge:
    """Note a judge in the store, under a key made of its identity, and first the members of a panel.

    One that the store has already keeps the name that it was first asked by.
    """
    members = tuple(note_judge(bench, *member) for member in getattr(judge, "members", ()))
    identity = _identity(judge)
    key = judge_key(entry.name, identity)
    if members:
        keys = [member.key for member in members]
        if twice := next((member for member in members if keys.count(member.key) > 1), None):
            raise UserError(f"judge '{twice.name}' is twice on the panel: give it other settings, or another judge")
        name = f"{entry.name}:{'+'.join(told_apart(members))}"
    proxy = entry.proxy or any(member.entry.proxy for member in members)
    row = {"key": key, "name": name[:_LONGEST_NAME], "kind": entry.kind, "proxy": proxy, "identity": identity}
    with bench.store.write() as session:
        insert_missing(session, schema.Judge, [row])
        name = session.get_one(schema.Judge, key).name
    return OpenJudge(entry, name, key, judge, members)


def _identity(judge: Any) -> dict[str, Any]:
    """A panel's holds its members', in an order that is not theirs."""
    identity = dict(judge.identity())
    if hasattr(judge, "members"):
        members = [[member.entry.name, _identity(member.judge)] for member in judge.members]
        identity["panel"] = sorted(members, key=content_key)
    return identity


Match = tuple[Stored, Stored]
"""The contestant's response and the baseline's, to one prompt."""
_Shown = tuple[str, str, Order]
"""Their keys, and the order in which they are shown."""


def ask(bench: Bench, judge: OpenJudge, matches: Iterable[Match], label: str, orders: Orders = "both") -> list[str]:
    """Have every match judged that is not yet; returns the reasons of what stayed unscored this time.

    Of a panel every member is asked as if it were alone, one after another; then their verdicts are combined: once a
    match where all members rate single responses, so that no order could change them.
    The first Ctrl-C lets a judge that can `finish` answer what is in flight, the second stops it at once. Where the
    engine spreads work and the judge's model may be loaded by each worker, they answer, and Ctrl-C stops at once.
    """
    unique = {(ours.key, theirs.key): (ours, theirs) for ours, theirs in matches}
    for member in judge.members:
        ask(bench, member, unique.values(), f"{label}, {member.name}", orders)
    if judge.members and all(member.entry.kind == "pointwise" for member in judge.members):
        orders = "random"  # they see no order
    if judge.entry.kind == "pointwise":
        return _rate(bench, judge, {s.key: s for match in unique.values() for s in match}, label)
    return _compare(bench, judge, unique, label, orders)


def tell_unscored(bench: Bench, reasons: Sequence[str]) -> None:
    """Say how many questions stayed unscored, and why most of them did."""
    if reasons:
        most = sorted(set(reasons), key=reasons.count, reverse=True)[:3]
        bench.reporter.say(f"  {len(reasons)} unscored ({'; '.join(most)}); run again to ask once more")


def _rate(bench: Bench, judge: OpenJudge, responses: Mapping[str, Stored], label: str) -> list[str]:
    """Of responses that say the same to the same prompt one is asked about, and all have its rating: they tie."""
    alike: dict[Any, list[str]] = {}
    for key, stored in responses.items():
        said = (stored.response.prompt.key, *(reply.text for reply in stored.response.replies))
        alike.setdefault(said, []).append(key)
    several = [keys for keys in alike.values() if len(keys) > 1]
    with bench.store.write() as session:
        share_ratings(session, judge.key, several)
    owed = {keys[0]: responses[keys[0]] for keys in alike.values()}
    with bench.store.read() as session:
        for chunk in chunks(list(responses)):
            query = select(schema.Rating.response_key).where(
                schema.Rating.judge_key == judge.key,
                schema.Rating.value.is_not(None),
                schema.Rating.response_key.in_(chunk),
            )
            for known in session.scalars(query):
                owed.pop(known, None)
    asked = list(owed.values())
    questions = Lazily(asked, lambda stored: stored.response)
    pointwise: PointwiseJudge = judge.judge
    with keeping(bench, pointwise, judge.key, schema.Rating, questions, label, "ratings") as keep:
        if asked:
            with closing(answers(bench.engine, pointwise, pointwise.rate, questions)) as ratings:
                for index, rating in ratings:
                    keep(rating, rating.value is not None, {"response_key": asked[index].key})
    with bench.store.write() as session:
        share_ratings(session, judge.key, several)
    return keep.reasons


def _compare(
    bench: Bench, judge: OpenJudge, matches: Mapping[tuple[str, str], Match], label: str, orders: Orders
) -> list[str]:
    owed: dict[Any, None] = dict.fromkeys(
        (ours, theirs, order) for ours, theirs in matches for order in orders_of(orders, ours, theirs)
    )
    columns = schema.Verdict.contestant_response, schema.Verdict.baseline_response, schema.Verdict.order
    with bench.store.read() as session:
        for chunk in chunks(list(dict.fromkeys(ours for ours, _ in matches))):
            query = select(*columns).where(
                schema.Verdict.judge_key == judge.key,
                schema.Verdict.outcome != Outcome.unscored,
                schema.Verdict.contestant_response.in_(chunk),
            )
            for known in session.execute(query):
                owed.pop(known, None)  # a row is a tuple
    asked: list[_Shown] = list(owed)

    def comparison(key: _Shown) -> Comparison:
        contestant, baseline = matches[key[:2]]
        return Comparison(contestant=contestant.response, baseline=baseline.response, order=key[2])

    pairwise: PairwiseJudge = judge.judge
    questions = Lazily(asked, comparison)
    with keeping(bench, pairwise, judge.key, schema.Verdict, questions, label, "verdicts") as keep:
        if asked:
            said = answers(bench.engine, pairwise, pairwise.judge, questions)
            # Closing cancels open requests at once where this loop ends early.
            with closing(_combined(bench, judge, asked) if judge.members else said) as verdicts:
                for index, verdict in verdicts:
                    ours, theirs, order = asked[index]
                    key = {"contestant_response": ours, "baseline_response": theirs, "order": order}
                    keep(verdict, verdict.outcome is not Outcome.unscored, key)
    return keep.reasons


def _combined(bench: Bench, judge: OpenJudge, asked: Sequence[_Shown]) -> Generator[tuple[int, Verdict]]:
    """What a panel says, of what the store holds of its members."""
    panel: PanelJudge = judge.judge
    index = 0
    for chunk in chunks(asked):
        with bench.store.read() as session:
            said = [_said(session, member, chunk) for member in judge.members]
        for verdicts in zip(*said, strict=True):
            yield index, panel.verdict(verdicts)
            index += 1


def _said(session: Session, member: OpenJudge, shown: Sequence[_Shown]) -> list[Verdict]:
    """A member's verdicts of these, one each; of a pointwise one by two ratings, whatever the order."""
    if member.entry.kind == "pointwise":
        found = dict.fromkeys((key for ours, theirs, _ in shown for key in (ours, theirs)), _UNASKED)
        for part in chunks(list(found)):
            query = select(schema.Rating).where(
                schema.Rating.judge_key == member.key, schema.Rating.response_key.in_(part)
            )
            for rating in session.scalars(query):
                found[rating.response_key] = Rating(value=rating.value, reason=rating.reason)
        return [found[ours].against(found[theirs]) for ours, theirs, _ in shown]
    verdicts = dict.fromkeys(shown, _UNASKED.against(_UNASKED))
    keys = list(dict.fromkeys(ours for ours, _, _ in shown))
    rows = select(schema.Verdict).where(
        schema.Verdict.judge_key == member.key, schema.Verdict.contestant_response.in_(keys)
    )
    for row in session.scalars(rows):
        place: Any = (row.contestant_response, row.baseline_response, row.order)
        if place in verdicts:
            verdicts[place] = Verdict(outcome=Outcome(row.outcome), preference=row.preference, reason=row.reason)
    return list(verdicts.values())


_UNASKED = Rating(value=None, reason="not asked")
