"""Which comparisons are owed, and asking a judge for them.

What stayed unscored is kept with its reason, counted as such, and owed again on the next run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError
from sqlalchemy import select

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.recipe import explain
from dadpo_bench.registry import JudgeEntry
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.responses import Stored
from dadpo_bench.store import insert_missing, schema
from dadpo_bench.store.rows import chunks, keep_judgment
from dadpo_bench.types import (
    Comparison,
    JudgeContext,
    Order,
    Outcome,
    PairwiseJudge,
    PointwiseJudge,
    Verdict,
    content_key,
)

BOTH: tuple[Order, ...] = ("ab", "ba")


def orders_of(asked: Literal["both", "random"], ours: str, theirs: str) -> tuple[Order, ...]:
    """The orders in which two responses are shown, given their keys: both, or one that is drawn by them."""
    if asked == "both":
        return BOTH
    return (BOTH[int(content_key("order", ours, theirs), 16) % 2],)


class OpenJudge(NamedTuple):
    """A judge ready to be asked."""

    entry: JudgeEntry
    name: str
    """As asked for, e.g. `chat:gpt-4o`."""
    key: str
    judge: Any


def check_judge(name: str, settings: Mapping[str, Any]) -> tuple[JudgeEntry, Any]:
    """The entry and validated config of `NAME` or `NAME:ARGUMENT`; loads no model.

    Raises `UserError` for an unknown judge, a wrong setting, or an argument that the judge does not take.
    """
    base, colon, argument = name.partition(":")
    entry = registry.judges[base]
    values = dict(settings)
    if colon:
        if not entry.argument:
            raise UserError(f"judge '{base}' takes no argument; write --judge {base}")
        values[entry.argument] = argument
    if not entry.config:
        if values:
            raise UserError(f"judge '{base}' has no settings; leave out {', '.join(sorted(values))}")
        return entry, None
    config = registry.resolve(entry.config)
    try:
        return entry, config.model_validate(values)
    except ValidationError as error:
        if entry.argument and entry.argument not in values:
            raise UserError(
                f"judge '{base}' needs its {entry.argument}: --judge {base}:{entry.argument.upper()}"
            ) from error
        raise UserError(explain(error, f"judge {base}", list(config.model_fields))) from error


def construct_judge(name: str, settings: Mapping[str, Any], context: JudgeContext) -> tuple[JudgeEntry, Any]:
    """The judge itself; loads no model. A missing API key is told here, before any work."""
    entry, config = check_judge(name, settings)
    return entry, registry.judges.load(entry.name)(config, context)


def note_judge(bench: Bench, name: str, entry: JudgeEntry, judge: Any) -> OpenJudge:
    """Note a judge in the store, under a key made of its identity."""
    identity = dict(judge.identity())
    key = content_key("judge", entry.name, identity)
    row = {"key": key, "name": name, "kind": entry.kind, "proxy": entry.proxy, "identity": identity}
    with bench.store.write() as session:
        insert_missing(session, schema.Judge, [row])
    return OpenJudge(entry, name, key, judge)


Match = tuple[Stored, Stored]
"""The contestant's response and the baseline's, to one prompt."""


def ask(
    bench: Bench,
    judge: OpenJudge,
    matches: Iterable[Match],
    label: str,
    orders: Literal["both", "random"] = "both",
) -> list[str]:
    """Have every match judged that is not yet; returns the reasons of what stayed unscored this time."""
    unique = {(ours.key, theirs.key): (ours, theirs) for ours, theirs in matches}
    if judge.entry.kind == "pointwise":
        responses = {s.key: s for match in unique.values() for s in match}
        return _rate(bench, judge, list(responses.values()), label)
    return _compare(bench, judge, list(unique.values()), label, orders)


def _rate(bench: Bench, judge: OpenJudge, responses: Sequence[Stored], label: str) -> list[str]:
    known: set[str] = set()
    with bench.store.read() as session:
        for chunk in chunks([s.key for s in responses]):
            known.update(
                session.scalars(
                    select(schema.Rating.response_key).where(
                        schema.Rating.judge_key == judge.key,
                        schema.Rating.value.is_not(None),
                        schema.Rating.response_key.in_(chunk),
                    )
                )
            )
    owed = [s for s in responses if s.key not in known]
    reasons: list[str] = []
    pointwise: PointwiseJudge = judge.judge
    with bench.reporter.bar(label, len(owed), "ratings") as bar:
        if owed:
            for index, rating in pointwise.rate([s.response for s in owed]):
                row = schema.Rating(
                    judge_key=judge.key,
                    response_key=owed[index].key,
                    asked=datetime.now(UTC),
                    **rating.model_dump(mode="json"),
                )
                with bench.store.write() as session:
                    keep_judgment(session, row)
                if rating.value is None:
                    reasons.append(rating.reason)
                bar.advance()
    return reasons


def _compare(
    bench: Bench, judge: OpenJudge, matches: Sequence[Match], label: str, orders: Literal["both", "random"]
) -> list[str]:
    known: set[tuple[str, str, str]] = set()
    with bench.store.read() as session:
        for chunk in chunks([ours.key for ours, _ in matches]):
            query = select(
                schema.Verdict.contestant_response, schema.Verdict.baseline_response, schema.Verdict.order
            ).where(
                schema.Verdict.judge_key == judge.key,
                schema.Verdict.outcome != Outcome.unscored,
                schema.Verdict.contestant_response.in_(chunk),
            )
            known.update((a, b, order) for a, b, order in session.execute(query))
    owed = [
        (ours, theirs, order)
        for ours, theirs in matches
        for order in orders_of(orders, ours.key, theirs.key)
        if (ours.key, theirs.key, order) not in known
    ]
    reasons: list[str] = []
    pairwise: PairwiseJudge = judge.judge
    with bench.reporter.bar(label, len(owed), "verdicts") as bar:
        if owed:
            asked = [Comparison(contestant=a.response, baseline=b.response, order=o) for a, b, o in owed]
            # Closing cancels open requests at once where this loop ends early.
            with closing(pairwise.judge(asked)) as verdicts:
                for index, verdict in verdicts:
                    ours, theirs, order = owed[index]
                    with bench.store.write() as session:
                        keep_judgment(session, _verdict_row(judge, ours.key, theirs.key, order, verdict))
                    if verdict.outcome is Outcome.unscored:
                        reasons.append(verdict.reason)
                    bar.advance(note=f"{len(reasons)} unscored" if reasons else "")
    return reasons


def _verdict_row(judge: OpenJudge, contestant: str, baseline: str, order: Order, verdict: Verdict) -> schema.Verdict:
    return schema.Verdict(
        judge_key=judge.key,
        contestant_response=contestant,
        baseline_response=baseline,
        order=order,
        asked=datetime.now(UTC),
        **verdict.model_dump(mode="json"),
    )
