"""What a judge says: given by this process or by the engine's workers, and kept as it arrives."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

from dadpo_bench.counts import counted
from dadpo_bench.engine import HOPELESS, Engine
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.interrupts import finishing
from dadpo_bench.lazily import Lazily
from dadpo_bench.progress import Bar
from dadpo_bench.stages.bench import Bench
from dadpo_bench.store.judgments import Keeper, Table
from dadpo_bench.types import Asked, Comparison, Rating, Response, Verdict

Question = TypeVar("Question", Comparison, Response)
Said = TypeVar("Said", Verdict, Rating)

Ask = Callable[[Sequence[Question]], Iterator[tuple[int, Said]]]
"""A judge's `judge` or `rate`."""


def answers(
    engine: Engine, judge: Any, ask: Ask[Question, Said], questions: Sequence[Question]
) -> Generator[tuple[int, Said]]:
    """Yield (index, what the judge says) as it arrives, in any order: as `ask` does, or by workers.

    A worker is given a share of the questions at a time; one share that fails keeps no other from its answers, and is
    told of behind them. Closing stops what is asked.
    """
    size = _share_size(engine, judge)
    if not size:
        yield from ask(questions)
        return
    starts = range(0, len(questions), size)
    shares = Lazily(starts, lambda start: _Share(start, questions[start : start + size]))
    failed: list[WorkError] = []
    good = False
    for share, (said, error) in engine.map(partial(_Worker, ask), shares, _named):
        yield from said
        good = good or error is None
        if isinstance(error, UserError):
            raise error
        if error is not None:
            failed.append(WorkError(f"{_named(share)}: {error}"))
            if not good and len(failed) >= HOPELESS:
                break
    if failed:
        others = f" (and {counted(len(failed) - 1, 'other shares')})" if len(failed) > 1 else ""
        raise WorkError(f"{failed[0]}{others}")


def _share_size(engine: Engine, judge: Any) -> int:
    """Questions that a worker is given at a time; 0 where this process asks."""
    return getattr(judge, "share", 0) if engine.spreads else 0


class _Share(NamedTuple):
    start: int
    questions: Sequence[Any]


class _Answered(NamedTuple):
    said: list[tuple[int, Any]]
    error: UserError | WorkError | None
    """What ended it: what was said before stands."""


class _Worker:
    """A judge elsewhere; its model is loaded once."""

    def __init__(self, ask: Callable[[Sequence[Any]], Iterator[tuple[int, Any]]]) -> None:
        self._ask = ask

    def __call__(self, share: _Share) -> _Answered:
        said: list[tuple[int, Any]] = []
        try:
            for index, one in self._ask(share.questions):
                said.append((share.start + index, one))
        except (UserError, WorkError) as error:
            return _Answered(said, error)
        return _Answered(said, None)


def _named(share: _Share) -> str:
    prompt = share.questions[0].prompt
    return f"{counted(len(share.questions), 'questions')} from that on prompt {prompt.id or prompt.key} on"


class Keep:
    """What was said, kept and counted."""

    def __init__(self, keeper: Keeper, judge_key: str, bar: Bar) -> None:
        self._keeper, self._judge_key, self._bar = keeper, judge_key, bar
        self.reasons: list[str] = []
        """Of what stayed unscored."""
        self._count = self._read = self._answered = 0

    def __call__(self, said: Asked, scored: bool, key: Mapping[str, str]) -> None:
        row = {"judge_key": self._judge_key, "asked": datetime.now(UTC), **key, **said.model_dump(mode="json")}
        self._keeper.keep(row)
        self._count += 1
        self._read += said.tokens - said.answer_tokens
        self._answered += said.answer_tokens
        if not scored:
            self.reasons.append(said.reason)
        self._bar.advance(note=f"{len(self.reasons)} unscored" if self.reasons else "")

    def bill(self, unit: str) -> str:
        """What it took, in one line, where others than this process were asked."""
        return f"{counted(self._count, unit)}, {self._read:,} tokens read, {self._answered:,} answered, by workers"


@contextmanager
def keeping(
    bench: Bench, judge: Any, judge_key: str, table: Table, questions: Sequence[Any], label: str, unit: str
) -> Iterator[Keep]:
    """What is said within is kept. A judge that costs something or can finish is asked what, and to.

    Where workers answer, there is nothing here to finish or to hear of, and what it has cost is counted as it arrives.
    """
    say, here = bench.reporter.say, not _share_size(bench.engine, judge)

    def finish() -> None:
        say("  finishing what is in flight; Ctrl-C again stops at once")
        judge.finish()

    with ExitStack() as stack:
        if here and hasattr(judge, "finish"):
            stack.enter_context(finishing(finish))
        bar = stack.enter_context(bench.reporter.bar(label, len(questions), unit))
        keeper = Keeper(bench.store, table)
        keep = Keep(keeper, judge_key, bar)
        if here and hasattr(judge, "tell"):
            judge.tell(bar.note)
        if questions and hasattr(judge, "estimate"):
            say(f"  {label}: {judge.estimate(questions)}")
        if questions and hasattr(judge, "bill"):
            stack.callback(lambda: say(f"  {label}: {judge.bill() if here else keep.bill(unit)}"))
        stack.enter_context(keeper)
        yield keep
