"""How many requests may be in flight: halved when the endpoint is overrun, grown back while it answers (AIMD).

Chiu and Jain 1989, as TCP does it: a limit that only shrank would stay low after one bad minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NewType

Ticket = NewType("Ticket", int)
"""Says which limit a request was sent under."""


class Window:
    """Counts requests in flight, of which `limit` may be, and none more during a pause.

    A `limit` starts at `most`. Failures of requests that were sent under an older limit are old news: one
    burst halves it once. As many successes as the limit is wide, a round, widen it by one, up to `most`.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = self.limit = most
        self.in_flight = 0
        self._clock = clock
        self._halvings = 0
        self._successes = 0
        self._paused_until = 0.0

    @property
    def paused(self) -> float:
        """Seconds for which nobody is let in."""
        return max(0.0, self._paused_until - self._clock())

    @property
    def places(self) -> int:
        """How many may go in now."""
        return 0 if self.paused else max(0, self.limit - self.in_flight)

    @property
    def load(self) -> float:
        """Share of the limit that is in flight."""
        return self.in_flight / self.limit

    def enter(self) -> Ticket:
        """Take a place; whoever has one leaves by `leave`."""
        self.in_flight += 1
        return Ticket(self._halvings)

    def leave(self) -> None:
        """Give the place back."""
        self.in_flight -= 1

    def succeeded(self, ticket: Ticket) -> None:
        """An answer came."""
        if ticket != self._halvings or self.limit == self.most:
            return
        self._successes += 1
        if self._successes >= self.limit:
            self.limit += 1
            self._successes = 0

    def overrun(self, ticket: Ticket) -> None:
        """The endpoint had too much to do: it said so, or did not answer in time."""
        if ticket == self._halvings:
            self.limit = max(1, self.limit // 2)
            self._halvings += 1
            self._successes = 0

    def pause(self, seconds: float) -> None:
        """Let nobody in for so long: the endpoint asked one for it and means all."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
