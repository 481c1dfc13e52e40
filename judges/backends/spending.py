"""What asking costs: an estimate before the first call, limits while asking, the bill after."""

from __future__ import annotations

import asyncio
import tomllib
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from dadpo_bench.errors import UserError
from dadpo_bench.types import Message, Value

CHARACTERS = 4.5
"""Of English text a token: an assumption; other scripts take more tokens."""
OPENAI_HOST = "api.openai.com"
_MILLION = 1_000_000


class Price(Value):
    """USD per million tokens."""

    input: float
    output: float
    date: str
    """When it was read."""
    source: str

    def usd(self, read: float, answered: float) -> float:
        """Of so many tokens."""
        return (self.input * read + self.output * answered) / _MILLION

    def __str__(self) -> str:
        return f"${self.input:g} / ${self.output:g} a million tokens ({self.source}, {self.date})"


@cache
def prices() -> Mapping[str, Price]:
    """By the model's name at OpenAI's own endpoint: `prices.toml`."""
    table = tomllib.loads((files("judges.backends") / "prices.toml").read_text())
    return {name: Price.model_validate(row) for name, row in table["models"].items()}


def price_at(host: str, model: str) -> Price | None:
    """What a model costs there, where it is known: at OpenAI's own endpoint."""
    return prices().get(model) if host == OPENAI_HOST else None


class Reached(Exception):
    """A limit keeps this question from being asked."""


class Promise(NamedTuple):
    """Room that an item's questions have."""

    costs: deque[float]
    """Of those that are not asked yet, USD at the worst."""


class Meter:
    """Counts calls and tokens, and holds a limit on either.

    A budget is held for the worst case: what a call may cost is set aside before it is made, its answer taken to be
    as long as allowed. So nothing is spent beyond it, but for prompts of more tokens than their characters tell
    and for calls that time out and are paid for all the same.
    Raises `UserError` for a budget on a model whose price is not known; `option` is how a setting is given.
    """

    def __init__(
        self,
        model: str,
        price: Price | None,
        limit: int,
        max_calls: int | None,
        budget: float | None,
        option: str = "--set 'judge_settings.{}'",
    ) -> None:
        if budget is not None and price is None:
            given = option.format("usd_per_million=[INPUT, OUTPUT]")
            raise UserError(
                f"--budget-usd: no price is known of '{model}' there; give it as {given}, or use --max-calls"
            )
        self.model, self.price = model, price
        self.calls = self.read = self.answered = self._open = 0
        self._promised = self._holders = 0
        self._limit, self._max_calls, self._budget = limit, max_calls, budget
        self._spent = self._set_aside = 0.0
        self._waiting: set[asyncio.Future[None]] = set()
        """For a call to close. No `asyncio.Event`: it belongs to one loop, and each set of questions has its own."""

    @asynccontextmanager
    async def promise(self, questions: Sequence[Sequence[Message]]) -> AsyncIterator[Promise]:
        """Room for all questions of one item before its first: a limit leaves none half-asked. Raises `Reached`."""
        costs = deque(self._cost(question) for question in questions)
        await self._room(len(costs), sum(costs))
        self._promised += len(costs)
        self._set_aside += sum(costs)
        self._holders += 1
        try:
            yield Promise(costs)
        finally:
            self._holders -= 1
            self._promised -= len(costs)
            self._release(sum(costs))

    @asynccontextmanager
    async def promised(self, messages: Sequence[Message], promise: Promise | None = None) -> AsyncIterator[Promise]:
        """Room for one call: of what was promised, else its own. Raises `Reached` for the latter."""
        if promise and promise.costs:
            yield promise
            return
        self._holders -= promise is not None  # whoever waits holds nobody up
        try:
            await self._room(1, self._cost(messages))
        finally:
            self._holders += promise is not None
        async with self.promise([messages]) as own:
            yield own

    def open(self, promise: Promise) -> float:
        """Before a call that has room: what is set aside for it, USD."""
        self._promised -= 1
        self.calls += 1
        self._open += 1
        return promise.costs.popleft()

    def close(self, set_aside: float, read: int = 0, answered: int = 0) -> None:
        """Behind a call: the tokens it took; none of a failed one."""
        self._open -= 1
        self.read += read
        self.answered += answered
        self._spent += self.price.usd(read, answered) if self.price else 0.0
        self._release(set_aside)

    def _cost(self, messages: Sequence[Message]) -> float:
        """Of a call at the worst, USD."""
        return self.price.usd(tokens_of(messages), self._limit) if self.price else 0.0

    async def _room(self, calls: int, cost: float) -> None:
        """Wait until the limits allow so much. Raises `Reached` where they never will."""
        while self._budget is not None and self._spent + self._set_aside + cost > self._budget:
            if not self._open and not self._holders:
                raise Reached(f"--budget-usd {self._budget:g} is reached (${self._spent:.4f} spent)")
            await self._settled()  # answers are mostly shorter than allowed
        if self._max_calls is not None and self.calls + self._promised + calls > self._max_calls:
            raise Reached(f"--max-calls {self._max_calls} is reached")

    def _release(self, set_aside: float) -> None:
        """What was set aside is spent, or was not needed; those who wait look again."""
        self._set_aside = self._set_aside - set_aside if self._open or self._holders else 0.0
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def _settled(self) -> None:
        """Until the next call is closed."""
        closed = asyncio.get_running_loop().create_future()
        self._waiting.add(closed)
        try:
            await closed
        finally:
            self._waiting.discard(closed)

    def bill(self) -> str:
        """One line."""
        took = f"{self.calls:,} calls, {self.read:,} tokens read, {self.answered:,} answered"
        cost = f"${self._spent:.4f} at {self.price}" if self.price else f"no price is known of '{self.model}' there"
        return f"{took}: {cost}"

    def estimate(self, samples: Sequence[Sequence[Message]], count: int) -> str:
        """One line on `count` calls, by samples of their prompts."""
        read = count * sum(map(tokens_of, samples)) / max(1, len(samples))
        answered = count * self._limit
        took = (
            f"{count:,} calls, about {read:,.0f} tokens to read (characters / {CHARACTERS:g}), "
            f"at most {answered:,} to answer"
        )
        if self.price is None:
            return f"{took}: no price is known of '{self.model}' there"
        low, high = self.price.usd(read, 0), self.price.usd(read, answered)
        return f"{took}: ${low:,.2f} to ${high:,.2f} at {self.price}"


def tokens_of(messages: Sequence[Message]) -> float:
    """About."""
    return sum(len(message.content) for message in messages) / CHARACTERS
