"""One question to a chat model behind an OpenAI-compatible endpoint, within the limits on what that may cost."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

from pydantic import Field, NonNegativeFloat

from dadpo_bench.types import JsonObject, Message
from judges.backends import Answer, Ask, Backend, BackendConfig, storable
from judges.backends.pool import Fault
from judges.backends.servers import Servers, ServersConfig
from judges.backends.spending import CHARACTERS, Meter, Price, Promise, Reached, price_at, tokens_of
from judges.verdicts import Token

T = TypeVar("T")

_LONGEST_NAME = 200
"""Characters of a model's name or fingerprint that are kept."""
_MOST_TOKENS = 2**31 - 1
"""Of one answer: more is a server's mistake, and no database's integer."""


class EndpointConfig(ServersConfig, BackendConfig):
    """Which model to ask, where and how. Only model, temperature and token limit decide what it answers."""

    max_calls: int | None = Field(None, ge=0, description="Calls in one run, repeated ones included. Null: no limit.")
    budget_usd: float | None = Field(
        None, ge=0, description="USD in one run, by the price of the model. Null: no limit."
    )
    usd_per_million: tuple[NonNegativeFloat, NonNegativeFloat] | None = Field(
        None,
        description="Price of a million tokens read and answered, USD. Null: OpenAI's own, as prices.toml has it.",
    )


class Endpoint(Servers[[Sequence[Message], Promise | None], Answer], Backend):
    """A chat endpoint, of one server or several equal ones.

    Raises `UserError` at once for a bad URL, a missing key or header (where it is to be asked) or price.
    """

    config: EndpointConfig
    option = "--set 'judge_settings.{}'"
    """How a setting is given on the command line."""

    def __init__(self, config: EndpointConfig, *, key: bool = True) -> None:
        super().__init__(config, key=key)
        self._limit = "max_completion_tokens" if self.official else "max_tokens"
        self.meter = self._meter()

    def identity(self) -> JsonObject:
        """The host. Retries, time-outs, concurrency, ports, keys and equal servers decide nothing."""
        return {"host": self.host}

    def promise(self, questions: Sequence[Sequence[Message]]) -> AbstractAsyncContextManager[Promise]:
        """By the meter."""
        return self.meter.promise(questions)

    def estimate(self, samples: Sequence[Sequence[Message]], count: int) -> str:
        """Calls, tokens and USD."""
        return self.meter.estimate(samples, count)

    def usd(self, read: float, answered: float) -> float | None:
        """By the model's price."""
        return self.meter.price.usd(read, answered) if self.meter.price else None

    def bill(self) -> str:
        """Calls, tokens and USD; and which servers were left out."""
        return self.meter.bill() + self.left_out

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ask]:
        """With clients of its own."""
        async with self.connected():
            yield self.ask

    def _meter(self) -> Meter:
        config = self.config
        price = price_at(str(self._parts[0].hostname), config.model)
        if config.usd_per_million is not None:
            read, answered = config.usd_per_million
            price = Price(input=read, output=answered, date="now", source="judge_settings.usd_per_million")
        return Meter(config.model, price, config.max_tokens, config.max_calls, config.budget_usd, self.option)

    async def ask(self, messages: Sequence[Message], promise: Promise | None = None) -> Answer:
        """The model's answer; `promise` where the meter gave room for several questions together.

        Raises `Unanswered` where this question has none, `UserError` where no question will have one, `Reached`
        where a limit kept it from being asked at all.
        """
        faults: list[Fault] = []
        try:
            return await self.attempted(partial(self._once, messages, promise), faults)
        except Reached:
            if faults:  # it was asked, and may not be any more
                raise self._meaning(faults[-1]) from None
            raise

    async def _once(self, messages: Sequence[Message], promise: Promise | None, faults: list[Fault]) -> Answer:
        limit = self._limit
        body = {
            "model": self.config.model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            limit: self.config.max_tokens,
            **self.sampling(),
        }
        try:
            # Room first: whoever waits for it must not keep a place from those who have room.
            async with self.meter.promised(messages, promise) as room, self.place(faults) as server:
                with self._metered(messages, room) as count:
                    started = time.monotonic()
                    completion = await self.sent(server, "/chat/completions", body)
                    answer = _read(completion, time.monotonic() - started)
                    count(answer)
                    return answer
        except Fault as fault:
            # OpenAI's reasoning models refuse `max_tokens`, behind other hosts too; many servers know only that.
            if fault.setting != "max_tokens" or limit != "max_tokens":
                faults.append(fault)
                raise
            self._limit = "max_completion_tokens"
        return await self._once(messages, promise, faults)

    def sampling(self) -> JsonObject:
        """What a request says of how it is to be answered, beside the limit."""
        sampling: dict[str, object] = {}
        if self.config.temperature is not None:
            sampling["temperature"] = self.config.temperature
        if self.config.top_logprobs:
            sampling |= {"logprobs": True, "top_logprobs": self.config.top_logprobs}
        return sampling

    @contextmanager
    def _metered(self, messages: Sequence[Message], room: Promise) -> Iterator[Callable[[Answer], None]]:
        """A call that is paid for; told the answer where there is one."""
        set_aside, tokens, task = self.meter.open(room), [0, 0], asyncio.current_task()

        def count(answer: Answer) -> None:
            if answer.tokens:
                tokens[:] = answer.tokens - answer.answer_tokens, answer.answer_tokens
            else:  # it does not count them
                tokens[:] = round(tokens_of(messages)), round(len(answer.text) / CHARACTERS)

        self.in_flight.add(task)
        try:
            yield count
        finally:
            self.in_flight.discard(task)
            self.meter.close(set_aside, *tokens)


def _read(completion: Any, seconds: float) -> Answer:
    """The parts of a completion that we use. Raises `ValueError` where it is none.

    Servers deviate from the schema: any part may be missing, or be anything.
    """
    choices = _part(completion, "choices", list)
    choice = choices[0] if choices else None
    message = _part(choice, "message", dict)
    content = message.get("content") if message else None
    if message is None or not isinstance(content, str | None):
        raise ValueError("no chat completion")
    text, finish, usage = (
        storable(content or ""),
        _part(choice, "finish_reason", str),
        _part(completion, "usage", dict),
    )
    return Answer(
        text,
        refused=(not text.strip() and finish != "length") or finish == "content_filter" or bool(message.get("refusal")),
        cut=finish == "length",
        model=storable(_part(completion, "model", str) or "")[:_LONGEST_NAME],
        fingerprint=storable(_part(completion, "system_fingerprint", str) or "")[:_LONGEST_NAME],
        tokens=_count(usage, "total_tokens"),
        answer_tokens=min(_count(usage, "completion_tokens"), _count(usage, "total_tokens")),
        seconds=seconds,
        logprobs=_tokens(_part(_part(choice, "logprobs", dict), "content", list) or []),
        token_ids=_ids(_part(choice, "token_ids", list) or []),
    )


def _count(usage: Any, name: str) -> int:
    """Tokens; 0 where it is no number of them."""
    count = _part(usage, name, int) or 0
    return count if 0 <= count <= _MOST_TOKENS else 0


def _ids(ids: list[Any]) -> tuple[int, ...]:
    """None at all where one of them is none."""
    return tuple(ids) if all(isinstance(one, int) and 0 <= one <= _MOST_TOKENS for one in ids) else ()


def _tokens(places: list[Any]) -> tuple[Token, ...]:
    """None at all where one of them is malformed: a token out of its place would be read for another."""
    try:
        return tuple(
            Token(str(place["token"]), {str(one["token"]): _log_prob(one["logprob"]) for one in place["top_logprobs"]})
            for place in places
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return ()


def _log_prob(value: Any) -> float:
    """At most 0; `min(0.0, nan)` would be certainty."""
    if math.isnan(log_prob := float(value)):
        raise ValueError("no number")
    return min(0.0, log_prob)


def _part(whole: Any, name: str, kind: type[T]) -> T | None:
    part = whole.get(name) if isinstance(whole, dict) else None
    return part if isinstance(part, kind) else None
