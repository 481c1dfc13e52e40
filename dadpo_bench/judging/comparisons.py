"""Which comparisons are owed, and asking a judge for them.

What stayed unscored is kept with its reason, counted as such, and owed again on the next run.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TypeVar, overload

from pydantic import ValidationError
from sqlalchemy import select

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.interrupts import finishing
from dadpo_bench.progress import Bar
from dadpo_bench.recipe import explain
from dadpo_bench.registry import JudgeEntry
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.responses import Stored
from dadpo_bench.store import insert_missing, schema
from dadpo_bench.store.judgments import Keeper, Table
from dadpo_bench.store.rows import chunks
from dadpo_bench.types import (
    Asked,
    Comparison,
    JudgeContext,
    Order,
    Outcome,
    PairwiseJudge,
    PointwiseJudge,
    content_key,
)

K = TypeVar("K")
T = TypeVar("T")

Orders = Literal["both", "random"]
BOTH: tuple[Order, ...] = ("ab", "ba")


def orders_of(asked: Orders, ours: str, theirs: str) -> tuple[Order, ...]:
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


def ask(bench: Bench, judge: OpenJudge, matches: Iterable[Match], label: str, orders: Orders = "both") -> list[str]:
    """Have every match judged that is not yet; returns the reasons of what stayed unscored this time.

    The first Ctrl-C lets a judge that can `finish` answer what is in flight, the second stops it at once.
    """
    unique = {(ours.key, theirs.key): (ours, theirs) for ours, theirs in matches}
    if judge.entry.kind == "pointwise":
        return _rate(bench, judge, {s.key: s for match in unique.values() for s in match}, label)
    return _compare(bench, judge, unique, label, orders)


def tell_unscored(bench: Bench, reasons: Sequence[str]) -> None:
    """Say how many questions stayed unscored, and why most of them did."""
    if reasons:
        most = sorted(set(reasons), key=reasons.count, reverse=True)[:3]
        bench.reporter.say(f"  {len(reasons)} unscored ({'; '.join(most)}); run again to ask once more")


def _rate(bench: Bench, judge: OpenJudge, responses: Mapping[str, Stored], label: str) -> list[str]:
    owed = dict(responses)
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
    questions = _Lazily(asked, lambda stored: stored.response)
    pointwise: PointwiseJudge = judge.judge
    with _keeping(bench, judge, schema.Rating, questions, label, "ratings") as keep:
        if asked:
            for index, rating in pointwise.rate(questions):
                keep(rating, rating.value is not None, {"response_key": asked[index].key})
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
    asked: list[tuple[str, str, Order]] = list(owed)

    def comparison(key: tuple[str, str, Order]) -> Comparison:
        contestant, baseline = matches[key[:2]]
        return Comparison(contestant=contestant.response, baseline=baseline.response, order=key[2])

    pairwise: PairwiseJudge = judge.judge
    questions = _Lazily(asked, comparison)
    with _keeping(bench, judge, schema.Verdict, questions, label, "verdicts") as keep:
        if asked:
            # Closing cancels open requests at once where this loop ends early.
            with closing(pairwise.judge(questions)) as verdicts:
                for index, verdict in verdicts:
                    ours, theirs, order = asked[index]
                    key = {"contestant_response": ours, "baseline_response": theirs, "order": order}
                    keep(verdict, verdict.outcome is not Outcome.unscored, key)
    return keep.reasons


class _Lazily(Sequence[T]):
    """Items made when they are looked at: a judge may be asked a million questions and hold a few."""

    def __init__(self, keys: Sequence[K], make: Callable[[K], T]) -> None:
        self._keys: Sequence[Any] = keys
        self._make: Callable[[Any], T] = make

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._make(key) for key in self._keys[index]]
        return self._make(self._keys[index])


class _Keep:
    """What was said, kept and counted."""

    def __init__(self, keeper: Keeper, judge_key: str, bar: Bar) -> None:
        self._keeper, self._judge_key, self._bar = keeper, judge_key, bar
        self.reasons: list[str] = []
        """Of what stayed unscored."""

    def __call__(self, said: Asked, scored: bool, key: Mapping[str, str]) -> None:
        row = {"judge_key": self._judge_key, "asked": datetime.now(UTC), **key, **said.model_dump(mode="json")}
        self._keeper.keep(row)
        if not scored:
            self.reasons.append(said.reason)
        self._bar.advance(note=f"{len(self.reasons)} unscored" if self.reasons else "")


@contextmanager
def _keeping(
    bench: Bench, judge: OpenJudge, table: Table, questions: Sequence[Any], label: str, unit: str
) -> Iterator[_Keep]:
    """What is said within is kept; a judge that costs money or can finish is asked what, and to."""
    asked, say = judge.judge, bench.reporter.say

    def finish() -> None:
        say("  finishing what is in flight; Ctrl-C again stops at once")
        asked.finish()

    with ExitStack() as stack:
        if hasattr(asked, "finish"):
            stack.enter_context(finishing(finish))
        bar = stack.enter_context(bench.reporter.bar(label, len(questions), unit))
        if questions and hasattr(asked, "estimate"):
            say(f"  {label}: {asked.estimate(questions)}")
        if questions and hasattr(asked, "bill"):
            stack.callback(lambda: say(f"  {label}: {asked.bill()}"))
        keeper = stack.enter_context(Keeper(bench.store, table))
        yield _Keep(keeper, judge.key, bar)
