"""Equal servers behind one judge: the least busy is asked next, and one that fails is left out for a while.

Left out means: while there is another. Where all of them fail, all are asked, so that attempts are spent and the
work ends with an error instead of waiting for ever; a pool of one is a plain endpoint.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import openai

from judges.backends.window import Ticket, Window

LONGEST_PAUSE = 120.0
"""Seconds: a server that asks for more, or fails for longer, is asked again after this."""
_REST = 1.0
"""Seconds for which a server is left out at first; doubled every time that it fails again."""
_PATIENCE = 3
"""Answers 5xx, too late or unreadable, in a row, behind which a server is left out; of lost connections one."""
_OVERRUN = (408, 429, 503, 529)
"""Statuses of a server that has too much to do."""


class Fault(Exception):
    """A request failed at `server`. The error itself holds the request and its headers: no message shows it."""

    def __init__(self, server: Server, error: Exception) -> None:
        super().__init__()
        self.server, self.error = server, error
        self.status: int = error.status_code if isinstance(error, openai.APIStatusError) else 0

    @property
    def code(self) -> str | None:
        """What the server calls it."""
        return self.error.code if isinstance(self.error, openai.APIError) else None

    @property
    def setting(self) -> str | None:
        """The request's setting that the server refuses."""
        named = self.error.param if isinstance(self.error, openai.BadRequestError) else None
        return named if isinstance(named, str) else None

    @property
    def lost(self) -> bool:
        """No connection, or one that broke; time-outs are ours, the client is given none."""
        return isinstance(self.error, openai.APIConnectionError)

    @property
    def unreadable(self) -> bool:
        """A body that ended early, or is no completion."""
        return isinstance(self.error, ValueError | RecursionError)

    @property
    def late(self) -> bool:
        """No answer in time."""
        return self.status == 408 or isinstance(self.error, TimeoutError)

    @property
    def overrun(self) -> bool:
        """The server has too much to do."""
        return self.late or self.status in _OVERRUN

    @property
    def ill(self) -> bool:
        """The server is at fault, and neither the question nor the number of questions."""
        return self.lost or self.late or self.unreadable or self.status >= 500

    @property
    def passing(self) -> bool:
        """Another attempt may do better."""
        return self.code != "insufficient_quota" and (self.ill or self.status in (409, 429))

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks everybody to wait, where it does."""
        return retry_after(self.error) if self.passing and isinstance(self.error, openai.APIStatusError) else None


class Server:
    """One of several equals: its client, how much it may be asked at once, and how it fares."""

    client: openai.AsyncOpenAI
    """While it is open: it holds the key."""

    def __init__(self, url: str, name: str, window: Window, clock: Callable[[], float] = time.monotonic) -> None:
        self.url, self.name, self.window = url, name, window
        self.left_out = False
        """Whether it ever was."""
        self._clock = clock
        self._failures = 0
        """In a row."""
        self._rests = 0
        """In a row, the present one and its trial included."""
        self._rests_until = 0.0

    @property
    def address(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    @property
    def rests(self) -> float:
        """Seconds for which it is left out."""
        return max(0.0, self._rests_until - self._clock())

    @property
    def able(self) -> bool:
        """Whether it may be asked while there is another. Behind a rest one question tries it out."""
        return not self._rests or not (self.rests or self.window.in_flight)

    @property
    def on_trial(self) -> bool:
        """Whether it was left out and has not answered since."""
        return bool(self._rests)

    def answered(self, ticket: Ticket) -> None:
        """An answer came."""
        self.window.succeeded(ticket)
        self._recovered()

    def failed(self, ticket: Ticket, fault: Fault) -> None:
        """None came."""
        if fault.overrun:
            self.window.overrun(ticket)
        if (seconds := fault.retry_after) is not None:
            self.window.pause(min(seconds, LONGEST_PAUSE))
        if not fault.ill:
            self._recovered()  # it answers, even if by no
            return
        self._failures += 1
        if not self.rests and (fault.lost or self._rests or self._failures >= _PATIENCE):
            self._rests_until = self._clock() + min(LONGEST_PAUSE, _REST * 2 ** min(self._rests, 10))
            self._rests += 1
            self.left_out = True

    def _recovered(self) -> None:
        self._failures = self._rests = 0
        self._rests_until = 0.0


class Pool:
    """Hands out places at the servers."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.servers = servers
        self._queue: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def place(self, failed: Server | None = None, only: Server | None = None) -> AsyncIterator[Server]:
        """Wait for a place; not at the server that `failed` this question, where another has one; or at this one only.

        How the request within ends tells how many places there are. Raises `Fault` where it fails.
        """
        while (server := self._free(failed, only)) is None:
            await self._turn()
        ticket = server.window.enter()
        try:
            yield server
            server.answered(ticket)
        except (openai.OpenAIError, TimeoutError, ValueError, RecursionError) as error:
            fault = Fault(server, error)
            server.failed(ticket, fault)
            raise fault from None
        finally:
            server.window.leave()
            self._wake()

    def _able(self) -> Sequence[Server]:
        return [server for server in self.servers if server.able] or self.servers

    def _free(self, failed: Server | None, only: Server | None) -> Server | None:
        free = [server for server in ([only] if only else self._able()) if server.window.places]
        return min(free, key=lambda server: (server is failed, server.window.load), default=None)

    async def _turn(self) -> None:
        """Until a place may be free: somebody left, or a pause is over."""
        waits = [wait for server in self.servers if (wait := max(server.rests, server.window.paused))]
        place = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            await asyncio.wait([place], timeout=min(waits, default=None))
        except asyncio.CancelledError:
            if place.done():
                self._wake()  # its turn is another's
            raise
        finally:
            place.cancel()

    def _wake(self) -> None:
        places = sum(server.window.places for server in self._able()) if self._queue else 0
        while self._queue and places > 0:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(None)
                places -= 1


def retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds of a `Retry-After` header: a number or an HTTP date (RFC 9110, section 10.2.3)."""
    value = error.response.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
