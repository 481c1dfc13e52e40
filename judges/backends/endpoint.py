"""One question to a chat model behind an OpenAI-compatible endpoint: retries, time-outs, what failures mean.

The API key is read from the environment when a client is made. It is kept nowhere else, and no message
quotes the endpoint's own words, which may repeat it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import httpx2
import openai
from pydantic import Field
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from dadpo_bench.errors import UserError
from dadpo_bench.types import JsonObject, Message
from judges.backends import Answer, Ask, Backend, BackendConfig, Unanswered
from judges.backends.spending import CHARACTERS, Meter, Price, Promise, prices, tokens_of
from judges.backends.window import Window
from judges.verdicts import Token

T = TypeVar("T")

OPENAI_URL = "https://api.openai.com/v1"
_OVERRUN = (408, 429, 503, 529)
"""Statuses of a server that has too much to do."""
_LONGEST_PAUSE = 120.0
"""Seconds: a server that asks for more is asked again after this."""

_LONGEST_NAME = 200
"""Characters of a model's name or fingerprint that are kept."""
_MOST_TOKENS = 2**31 - 1
"""Of one answer: more is a server's mistake, and no database's integer."""

_TOO_LONG = re.compile(r"context (?:length|size|window)", re.IGNORECASE)
"""vLLM and llama.cpp say so in words alone."""

_REFUSED_SETTINGS = {
    "temperature": "temperature to null",
    "logprobs": "template to one that reads labels",
    "top_logprobs": "template to one that reads labels, or top_logprobs to fewer",
}
"""What to do where a model takes none, as reasoning models do."""


class EndpointConfig(BackendConfig):
    """Which model to ask, where and how. Only model, temperature and token limit decide what it answers."""

    base_url: str = Field(
        "", description="URL of the API up to and with /v1. Empty: $OPENAI_BASE_URL, else OpenAI's own."
    )
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        # A key put here by mistake is refused unsaid, before messages and stored recipes repeat it.
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="NAME of the environment variable that holds the API key, never the key itself. "
        "A local endpoint needs none.",
    )
    concurrency: int = Field(
        8,
        ge=1,
        description="Requests in flight at once, fewer while the endpoint answers 429 or too late; no verdict changes.",
    )
    timeout_seconds: float = Field(
        120.0, gt=0, description="Limit on one attempt, seconds from sending to the whole answer."
    )
    attempts: int = Field(
        6, ge=1, description="Attempts a question: 429, 5xx, time-outs and lost connections are tried again."
    )
    max_calls: int | None = Field(None, ge=0, description="Calls in one run, repeated ones included. Null: no limit.")
    budget_usd: float | None = Field(
        None, ge=0, description="USD in one run, by the price of the model. Null: no limit."
    )
    usd_per_million: tuple[float, float] | None = Field(
        None,
        description="Price of a million tokens read and answered, USD. Null: OpenAI's own, as prices.toml has it.",
    )
    backoff_seconds: float = Field(
        1.0,
        ge=0,
        description="Upper end of the first random pause between attempts, seconds; doubled each time.",
    )


class Endpoint(Backend):
    """A chat endpoint. Raises `UserError` at once for a bad URL, a missing key (where it is to be asked) or price."""

    config: EndpointConfig

    def __init__(self, config: EndpointConfig, *, key: bool = True) -> None:
        super().__init__()
        self.config = config
        self.askers = config.concurrency
        self._url = config.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
        self._parts = _checked(self._url)
        self._official = self._parts.hostname == urlsplit(OPENAI_URL).hostname
        self._limit = "max_completion_tokens" if self._official else "max_tokens"
        self.meter = self._meter()
        if key:
            self._key()
        self.window = Window(config.concurrency)
        """How many requests may be in flight; a new one for every client."""

    @property
    def host(self) -> str:
        """The server's name, which may decide the answer; `local` for this machine, whatever the port."""
        return "local" if _is_local(self._parts.hostname or "") else str(self._parts.hostname)

    @property
    def name(self) -> str:
        """By its host."""
        return f"endpoint {self.host}"

    def identity(self) -> JsonObject:
        """The host. Retries, time-outs, concurrency, port and key decide nothing."""
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
        """Calls, tokens and USD."""
        return self.meter.bill()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ask]:
        """With a client of its own."""
        async with self.client() as client:
            yield partial(self.ask, client)

    def _meter(self) -> Meter:
        config = self.config
        price = prices().get(config.model) if self._official else None
        if config.usd_per_million is not None:
            read, answered = config.usd_per_million
            price = Price(input=read, output=answered, date="now", source="judge_settings.usd_per_million")
        return Meter(config.model, price, config.max_tokens, config.max_calls, config.budget_usd)

    def _key(self) -> str:
        name = self.config.api_key_env
        key = os.environ.get(name, "").strip()
        if not key and self.host != "local":
            raise UserError(f"no API key: set {name}, or pass --judge pmi")
        if not (key.isascii() and key.isprintable()):
            raise UserError(f"the API key in {name} holds characters that no HTTP header may carry: set it again")
        return key or "none"

    def client(self) -> openai.AsyncOpenAI:
        """A client; close it by `async with`. Retries and time-outs are ours alone."""
        most = self.config.concurrency
        self.window = Window(most)
        # aiohttp takes half the processor time of httpx2 (benchmarks/README.md); it need not be there.
        transport = openai.DefaultAioHttpClient if find_spec("aiohttp") else openai.DefaultAsyncHttpxClient
        pool = httpx2.Limits(max_connections=most, max_keepalive_connections=most)
        return openai.AsyncOpenAI(
            api_key=self._key(),
            base_url=self._url,
            max_retries=0,
            timeout=None,
            http_client=transport(limits=pool, timeout=None),
        )

    async def ask(
        self, client: openai.AsyncOpenAI, messages: Sequence[Message], promise: Promise | None = None
    ) -> Answer:
        """The model's answer; `promise` where the meter gave room for several questions together.

        Raises `Unanswered` where this question has none, `UserError` where no question will have one.
        """
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.config.attempts),
            wait=self._pause,
            retry=retry_if_exception(lambda error: _transient(error) and not self.finishing),
            reraise=True,
        )
        try:
            return await retrying(self._once, client, messages, promise)
        # `from None`: the original holds the request and its headers.
        except openai.APIStatusError as error:
            raise self._meaning(error) from None
        except openai.APIConnectionError:  # its time-outs are lost connections: the client is given no limit
            raise Unanswered("api error: APIConnectionError", failure=True) from None
        except (openai.APIError, TimeoutError) as error:
            raise Unanswered(f"api error: {type(error).__name__}", failure=True) from None
        except ValueError:  # a body that is no JSON
            raise Unanswered("unparsable", failure=True) from None

    async def _once(self, client: openai.AsyncOpenAI, messages: Sequence[Message], promise: Promise | None) -> Answer:
        limit = self._limit
        sampling: dict[str, object] = {}
        if self.config.temperature is not None:
            sampling["temperature"] = self.config.temperature
        if self.config.top_logprobs:
            sampling |= {"logprobs": True, "top_logprobs": self.config.top_logprobs}
        body = {
            "model": self.config.model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            limit: self.config.max_tokens,
            **sampling,
        }
        try:
            async with self._place(), self._metered(messages, promise) as count:
                started = time.monotonic()
                async with asyncio.timeout(self.config.timeout_seconds):
                    # `chat.completions.create` takes as long again to check what it sends and receives.
                    response = await client.post("/chat/completions", cast_to=httpx2.Response, body=body)
                answer = _read(response.json(), time.monotonic() - started)
                count(answer)
                return answer
        except openai.BadRequestError as error:
            # OpenAI's reasoning models refuse `max_tokens`, behind other hosts too; many servers know only that.
            if error.param != "max_tokens" or limit != "max_tokens":
                raise
            self._limit = "max_completion_tokens"
        return await self._once(client, messages, promise)

    @asynccontextmanager
    async def _metered(
        self, messages: Sequence[Message], promise: Promise | None
    ) -> AsyncIterator[Callable[[Answer], None]]:
        """A call that is paid for; told the answer where there is one."""
        set_aside, tokens, task = await self.meter.open(messages, promise), [0, 0], asyncio.current_task()

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

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A place among the requests in flight; how the request ends tells how many places there are."""
        window = self.window
        ticket = await window.enter()
        try:
            yield
            window.succeeded(ticket)
        except TimeoutError:
            window.overrun(ticket)
            raise
        except openai.APIStatusError as error:
            if error.status_code in _OVERRUN:
                window.overrun(ticket)
            if _transient(error) and (asked := _retry_after(error)) is not None:
                window.pause(min(asked, _LONGEST_PAUSE))
            raise
        finally:
            window.leave()

    def _pause(self, state: RetryCallState) -> float:
        """Seconds before the next attempt: exponential with jitter, none where the server asked all to wait."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, openai.APIStatusError) and _retry_after(error):  # 0 asks for nothing
            return 0
        return wait_random_exponential(multiplier=self.config.backoff_seconds, max=_LONGEST_PAUSE)(state)

    def _meaning(self, error: openai.APIStatusError) -> Exception:
        status = error.status_code
        remedies = {
            401: f"it does not accept the API key: check {self.config.api_key_env}",
            403: f"the API key in {self.config.api_key_env} may not use model '{self.config.model}'",
            404: f"no model '{self.config.model}' or no API there: check the model's name and base_url",
        }
        if status in remedies:
            return UserError(f"judge endpoint {self.host} answered {status}: {remedies[status]}")
        if status == 400 and error.param in _REFUSED_SETTINGS:
            setting = _REFUSED_SETTINGS[error.param]
            return UserError(f"model '{self.config.model}' refuses {error.param}: set the judge's {setting}")
        if error.code == "insufficient_quota":
            return UserError(f"judge endpoint {self.host} answered {status}: the account's quota is used up")
        if status == 413 or error.code == "context_length_exceeded" or _TOO_LONG.search(error.message):
            return Unanswered("too long")
        if error.code in ("content_filter", "content_policy_violation"):
            return Unanswered("refused")
        return Unanswered(f"api error: {type(error).__name__} {status}", failure=True)


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        raise UserError("base_url is no URL; write it as http://127.0.0.1:8000/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError("base_url must start with http:// or https:// and name a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        # It is stored with the run's recipe.
        raise UserError("base_url must hold no user, password or query: put the key into an environment variable")
    return parts


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _transient(error: BaseException) -> bool:
    if isinstance(error, openai.APIStatusError):
        return error.code != "insufficient_quota" and (error.status_code in (408, 409, 429) or error.status_code >= 500)
    return isinstance(error, openai.APIConnectionError | TimeoutError)


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds of a `Retry-After` header: a number or an HTTP date (RFC 9110, section 10.2.3)."""
    value = error.response.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


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
        _storable(content or ""),
        _part(choice, "finish_reason", str),
        _part(completion, "usage", dict),
    )
    return Answer(
        text,
        refused=(not text.strip() and finish != "length") or finish == "content_filter" or bool(message.get("refusal")),
        cut=finish == "length",
        model=_storable(_part(completion, "model", str) or "")[:_LONGEST_NAME],
        fingerprint=_storable(_part(completion, "system_fingerprint", str) or "")[:_LONGEST_NAME],
        tokens=_count(usage, "total_tokens"),
        answer_tokens=_count(usage, "completion_tokens"),
        seconds=seconds,
        logprobs=_tokens(_part(_part(choice, "logprobs", dict), "content", list) or []),
    )


def _storable(text: str) -> str:
    """JSON may escape half a surrogate pair, and NUL: no database takes the one, PostgreSQL not the other."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def _count(usage: Any, name: str) -> int:
    """Tokens; 0 where it is no number of them."""
    count = _part(usage, name, int) or 0
    return count if 0 <= count <= _MOST_TOKENS else 0


def _tokens(places: list[Any]) -> tuple[Token, ...]:
    """None at all where one of them is malformed: a token out of its place would be read for another."""
    try:
        return tuple(
            Token(
                str(place["token"]),
                {str(one["token"]): min(0.0, float(one["logprob"])) for one in place["top_logprobs"]},
            )
            for place in places
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return ()


def _part(whole: Any, name: str, kind: type[T]) -> T | None:
    part = whole.get(name) if isinstance(whole, dict) else None
    return part if isinstance(part, kind) else None
