"""How many requests may be in flight: halved when the endpoint is overrun, grown back while it answers (AIMD).

Chiu and Jain 1989, as TCP does it: a limit that only shrank would stay low after one bad minute.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NewType

Ticket = NewType("Ticket", int)
"""Says which limit a request was sent under."""


class Window:
    """Hands out at most `limit` tickets at a time, and none during a pause.

    A `limit` starts at `most`. Failures of requests that were sent under an older limit are old news: one
    burst halves it once. As many successes as the limit is wide, a round, widen it by one, up to `most`.
    """

    def __init__(
        self,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.most = self.limit = most
        self.in_flight = 0
        self._clock, self._sleep = clock, sleep
        self._queue: deque[asyncio.Future[None]] = deque()
        self._halvings = 0
        self._successes = 0
        self._paused_until = 0.0

    async def enter(self) -> Ticket:
        """Wait for a place; whoever has one leaves by `leave`."""
        while True:
            if (pause := self._paused_until - self._clock()) > 0:
                await self._sleep(pause)
            elif self.in_flight < self.limit:
                self.in_flight += 1
                return Ticket(self._halvings)
            else:
                place = asyncio.get_running_loop().create_future()
                self._queue.append(place)
                try:
                    await place
                except asyncio.CancelledError:
                    if not place.cancelled():
                        self._wake()  # its turn is another's
                    raise

    def leave(self) -> None:
        """Give the place back."""
        self.in_flight -= 1
        self._wake()

    def succeeded(self, ticket: Ticket) -> None:
        """An answer came."""
        if ticket != self._halvings or self.limit == self.most:
            return
        self._successes += 1
        if self._successes >= self.limit:
            self.limit += 1
            self._successes = 0
            self._wake()

    def overrun(self, ticket: Ticket) -> None:
        """The endpoint had too much to do: it said so, or did not answer in time."""
        if ticket == self._halvings:
            self.limit = max(1, self.limit // 2)
            self._halvings += 1
            self._successes = 0

    def pause(self, seconds: float) -> None:
        """Let nobody in for so long: the endpoint asked one for it and means all."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    def _wake(self) -> None:
        while self._queue and self.in_flight < self.limit:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(None)
                return
