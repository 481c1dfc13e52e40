"""Many questions to one backend at once: who takes the next one, and when to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import suppress
from typing import TypeVar

from dadpo_bench.errors import WorkError
from judges.backends import Ask, Backend, Unanswered
from judges.backends.pump import Emit, iterate
from judges.backends.spending import Reached

Question = TypeVar("Question")
Said = TypeVar("Said")

PATIENCE = 8
"""Questions in a row that may fail by the backend's fault, all attempts spent, before the work ends."""


class Asking:
    """Asks a backend, at most its `askers` questions at a time."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._loop: asyncio.AbstractEventLoop | None = None

    def all(
        self,
        questions: Sequence[Question],
        answer: Callable[[Ask, Question], Awaitable[Said]],
        unanswered: Callable[[str], Said],
    ) -> Generator[tuple[int, Said], None, None]:
        """Yield what was said as it arrives, `unanswered` of the reason where nothing was.

        Questions are taken one by one, when there is somebody to ask them. A consumer that stops early
        cancels what is in flight. Raises what `answer` raises, and `WorkError` after `PATIENCE` failures in a
        row, or behind what is in flight where a limit of the meter is reached; what was yielded before stands.
        """

        async def work(emit: Emit[tuple[int, Said]]) -> None:
            self._loop = asyncio.get_running_loop()
            owed = enumerate(questions)  # shared by the askers: each takes the next one
            failures = said_of = 0
            reached = ""

            async def asker(ask: Ask) -> None:
                nonlocal failures, said_of, reached
                while not (self._backend.finishing or reached):
                    index, question = next(owed, (-1, None))
                    if question is None:
                        return
                    try:
                        said = await answer(ask, question)
                        failures = 0
                    except Reached as limit:
                        reached = str(limit)
                        return
                    except Unanswered as why:
                        said = unanswered(why.reason)
                        failures = failures + 1 if why.failure else 0
                        if failures >= PATIENCE:
                            await emit((index, said))
                            raise WorkError(
                                f"judge {self._backend.name} failed {failures} comparisons in a row, "
                                f"last with '{why.reason}': check the server, then run the same command again"
                            ) from None
                    said_of += 1
                    await emit((index, said))

            try:
                async with self._backend.opened() as ask, asyncio.TaskGroup() as group:
                    for _ in range(min(self._backend.askers, len(questions))):
                        self._backend.tasks.append(group.create_task(asker(ask)))
            except ExceptionGroup as several:
                raise several.exceptions[0] from None
            if reached and not self._backend.finishing:
                raise WorkError(
                    f"{reached}: {len(questions) - said_of:,} of {len(questions):,} questions to "
                    f"{self._backend.config.model} are owed; raise the limit and run the same command again"
                )

        return iterate(work)

    def finish(self) -> None:
        """Ask nothing more; what is in flight is still answered and yielded. Any thread may call it."""
        self._backend.finishing = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nothing is in flight
                self._loop.call_soon_threadsafe(self._dismiss)

    def _dismiss(self) -> None:
        """Those who wait for their turn, or to try again, would wait for nothing."""
        for asker in self._backend.tasks:
            if asker not in self._backend.in_flight:
                asker.cancel()
