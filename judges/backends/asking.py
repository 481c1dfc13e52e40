"""Many questions to one backend at once: who takes the next one, and when to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

from dadpo_bench.errors import UserError, WorkError
from judges.backends import Source, Unanswered
from judges.backends.pump import Emit, iterate
from judges.backends.spending import Reached

P = ParamSpec("P")
A = TypeVar("A")
Question = TypeVar("Question")
Said = TypeVar("Said")

PATIENCE = 8
"""Questions in a row that may fail by the backend's fault, all attempts spent, before the work ends."""


@dataclass
class _Course:
    """How a set of questions has gone so far."""

    done: int = 0
    """No fault of the backend: nothing is owed."""
    answered: int = 0
    """Of these, what the backend was asked."""
    failed: int = 0
    in_a_row: int = 0
    """Failures since the last answer."""
    last: str = ""
    """Reason of the last failure."""
    reached: str = ""
    """The limit that was."""
    wrong: UserError | None = None
    """Why no question will have an answer."""


class Asking(Generic[P, A]):
    """Asks a backend, at most its `askers` questions at a time."""

    def __init__(self, backend: Source[P, A]) -> None:
        self._backend = backend
        self._loop: asyncio.AbstractEventLoop | None = None

    def all(
        self,
        questions: Sequence[Question],
        answer: Callable[[Callable[P, Awaitable[A]], Question], Awaitable[Said]],
        unanswered: Callable[[Unanswered], Said],
    ) -> Generator[tuple[int, Said], None, None]:
        """Yield what was said as it arrives, `unanswered` where nothing was.

        Questions are taken one by one, when there is somebody to ask them. A consumer that stops early
        cancels what is in flight. Raises what `answer` raises, behind what is in flight where no question will have
        an answer; and `WorkError` after `PATIENCE` failures in a row, where several questions failed and none was
        answered, or behind what is in flight where a limit of the meter is reached. What was yielded before stands.
        """

        async def work(emit: Emit[tuple[int, Said]]) -> None:
            self._loop = asyncio.get_running_loop()
            owed = enumerate(questions)  # shared by the askers: each takes the next one
            course = _Course()

            async def asker(ask: Callable[P, Awaitable[A]]) -> None:
                asked = limited = False

                async def noted(*given: P.args, **named: P.kwargs) -> A:
                    nonlocal asked, limited
                    asked = True
                    try:
                        return await ask(*given, **named)
                    except Reached as limit:  # though `answer` may make something of what it has
                        limited = True
                        course.reached = str(limit)
                        raise

                while not (self._backend.finishing or course.reached):
                    index, question = next(owed, (-1, None))
                    if question is None:
                        return
                    asked = failed = limited = False
                    try:
                        said = await answer(noted, question)
                    except Reached as limit:
                        course.reached = str(limit)
                        return
                    except UserError as wrong:
                        course.wrong = wrong
                        self._backend.finishing = True
                        self._dismiss()
                        return
                    except Unanswered as why:
                        said, failed = unanswered(why), why.failure
                        course.last = why.reason if failed else course.last
                    if failed:
                        course.failed += 1
                        course.in_a_row += 1
                    elif not limited:
                        course.done += 1
                        if asked:
                            course.answered += 1
                            course.in_a_row = 0
                    dead = course.in_a_row >= PATIENCE
                    await emit((index, said))
                    if dead:
                        raise self._failing(f"{PATIENCE} questions in a row", course.last)

            try:
                async with self._backend.opened() as ask, asyncio.TaskGroup() as group:
                    for _ in range(min(self._backend.askers, len(questions))):
                        self._backend.tasks.append(group.create_task(asker(ask)))
            except ExceptionGroup as several:
                raise several.exceptions[0] from None
            finally:
                if course.wrong:
                    self._backend.finishing = False  # the next set may be asked: a key may have been set
            if course.wrong:
                raise course.wrong
            if self._backend.finishing:
                return
            odd = course.failed == 1 and not course.reached  # a single question, that no server may take
            if course.failed and not course.answered and not odd:
                raise self._failing(f"all {course.failed} questions", course.last)
            if course.reached:
                raise WorkError(
                    f"{course.reached}: {len(questions) - course.done:,} of {len(questions):,} questions to "
                    f"{self._backend.model} are owed; raise the limit and run the same command again"
                )

        return iterate(work)

    def finish(self) -> None:
        """Ask nothing more; what is in flight is still answered and yielded. Any thread may call it."""
        self._backend.finishing = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nothing is in flight
                self._loop.call_soon_threadsafe(self._dismiss)

    def _failing(self, what: str, last: str) -> WorkError:
        return WorkError(
            f"{self._backend.role} {self._backend.name} failed {what}, last with '{last}': "
            "check the server, then run the same command again"
        )

    def _dismiss(self) -> None:
        """Those who wait for their turn, or to try again, would wait for nothing."""
        for asker in self._backend.tasks:
            if asker not in self._backend.in_flight:
                asker.cancel()
