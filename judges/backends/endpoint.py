"""One question to a chat model behind an OpenAI-compatible endpoint: retries, time-outs, what failures mean.

Keys and headers are read from the environment when clients are made. They are kept nowhere else, and no message
quotes the endpoint's own words, which may repeat them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import httpx2
import openai
from pydantic import Field, NonNegativeFloat, ValidationInfo, field_validator
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from dadpo_bench.errors import UserError
from dadpo_bench.types import JsonObject, Message
from judges.backends import Answer, Ask, Backend, BackendConfig, Unanswered, storable
from judges.backends.pool import LONGEST_PAUSE, Fault, Pool, Server
from judges.backends.spending import CHARACTERS, OPENAI_HOST, Meter, Price, Promise, Reached, price_at, tokens_of
from judges.backends.window import Window
from judges.verdicts import Token

T = TypeVar("T")

OPENAI_URL = f"https://{OPENAI_HOST}/v1"
_LONGEST_NAME = 200
"""Characters of a model's name or fingerprint that are kept."""
_MOST_TOKENS = 2**31 - 1
"""Of one answer: more is a server's mistake, and no database's integer."""

_TOO_LONG = re.compile(r"context (?:length|size|window)", re.IGNORECASE)
"""vLLM and llama.cpp say so in words alone."""

_VARIABLE = r"[A-Z_][A-Z0-9_]*"
"""Capitals alone: keys such as hf_… have small letters. One put here by mistake is refused unsaid, before messages and
stored recipes repeat it."""
_HEADER = r"^[A-Za-z0-9_-]+$"

_REFUSED_SETTINGS = {
    "temperature": "temperature to null",
    "logprobs": "template to one that reads labels",
    "top_logprobs": "template to one that reads labels, or top_logprobs to fewer",
}
"""What to do where a model takes none, as reasoning models do."""


class EndpointConfig(BackendConfig):
    """Which model to ask, where and how. Only model, temperature and token limit decide what it answers."""

    base_url: str | tuple[str, ...] = Field(
        "",
        description="URL of the API up to what stands before /chat/completions, mostly …/v1; or a list of URLs of "
        "equal servers, which share the questions: of them the judge's key knows the first one's host. "
        "Empty: $OPENAI_BASE_URL, else OpenAI's own.",
    )
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        description="NAME, in capitals, of the environment variable that holds the API key, never the key itself. "
        "A local endpoint needs none.",
    )
    key_header: str = Field(
        "Authorization",
        pattern=_HEADER,
        description="Header that carries the key: Authorization (as `Bearer KEY`), or another, e.g. Azure's api-key.",
    )
    headers: dict[str, str] = Field(
        {},
        description="More HTTP headers, each with the NAME of the environment variable that holds its value.",
    )
    api_version: str = Field(
        "", pattern=r"^[\w.-]*$", description="Azure's `api-version`, sent with every request. Empty: none."
    )
    concurrency: int = Field(
        8,
        ge=1,
        description="Requests in flight at once at each URL, fewer while it answers 429 or too late; no verdict "
        "changes.",
    )
    timeout_seconds: float = Field(
        120.0, gt=0, description="Limit on one attempt, seconds from sending to the whole answer."
    )
    attempts: int = Field(
        8,
        ge=1,
        description="Attempts a question: 429, 5xx, time-outs, lost connections and what is no completion are tried "
        "again.",
    )
    max_calls: int | None = Field(None, ge=0, description="Calls in one run, repeated ones included. Null: no limit.")
    budget_usd: float | None = Field(
        None, ge=0, description="USD in one run, by the price of the model. Null: no limit."
    )
    usd_per_million: tuple[NonNegativeFloat, NonNegativeFloat] | None = Field(
        None,
        description="Price of a million tokens read and answered, USD. Null: OpenAI's own, as prices.toml has it.",
    )
    backoff_seconds: float = Field(
        1.0,
        ge=0,
        description="Upper end of the first random pause between attempts, seconds; doubled each time.",
    )

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, variable: str) -> str:
        if not re.fullmatch(_VARIABLE, variable):
            raise ValueError("write the NAME, in capitals, of the environment variable that holds the key")
        return variable

    @field_validator("headers")
    @classmethod
    def _names(cls, headers: dict[str, str], given: ValidationInfo) -> dict[str, str]:
        for header, variable in headers.items():
            if not (re.fullmatch(_HEADER, header) and re.fullmatch(_VARIABLE, variable)):
                raise ValueError("write HEADER: NAME, in capitals, of the environment variable that holds the value")
            if header.lower() in ("authorization", given.data.get("key_header", "").lower()):
                raise ValueError(f"{header} carries the API key: set api_key_env and key_header")
        return headers


class Endpoint(Backend):
    """A chat endpoint, of one server or several equal ones.

    Raises `UserError` at once for a bad URL, a missing key or header (where it is to be asked) or price.
    """

    config: EndpointConfig
    option = "--set 'judge_settings.{}'"
    """How a setting is given on the command line."""
    otherwise = "choose a judge without one, such as pmi"
    """What to do without a key."""

    def __init__(self, config: EndpointConfig, *, key: bool = True) -> None:
        super().__init__()
        self.config = config
        given = config.base_url
        urls = given if isinstance(given, tuple) else (given or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL,)
        if not urls:
            raise UserError("base_url is an empty list: name a server in it, or leave it out")
        self._parts = [_checked(url) for url in urls]
        self.askers = config.concurrency * len(urls)
        self._official = self._parts[0].hostname == OPENAI_HOST
        self._limit = "max_completion_tokens" if self._official else "max_tokens"
        names = [parts.netloc for parts in self._parts] if urls[1:] else [self.host]
        self.pool = Pool([Server(url, name, Window(config.concurrency)) for url, name in zip(urls, names, strict=True)])
        self.meter = self._meter()
        self._bearer = config.key_header.lower() == "authorization"
        if key:
            self._key()
            self._headers()

    @property
    def host(self) -> str:
        """The first server's name, which may decide the answer; `local` for this machine, whatever the port."""
        return "local" if _is_local(self._parts[0]) else str(self._parts[0].hostname)

    @property
    def name(self) -> str:
        """By its servers."""
        return f"endpoint {', '.join(server.name for server in self.pool.servers)}"

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
        failed = [server.name for server in self.pool.servers if server.left_out and self.pool.servers[1:]]
        return self.meter.bill() + (f"; left out for a while: {', '.join(failed)}" if failed else "")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ask]:
        """With clients of its own."""
        async with AsyncExitStack() as stack:
            for server in self.pool.servers:
                server.client = await stack.enter_async_context(self._client(server.url))
                stack.callback(delattr, server, "client")
            yield self.ask

    def _meter(self) -> Meter:
        config = self.config
        price = price_at(str(self._parts[0].hostname), config.model)
        if config.usd_per_million is not None:
            read, answered = config.usd_per_million
            price = Price(input=read, output=answered, date="now", source="judge_settings.usd_per_million")
        return Meter(config.model, price, config.max_tokens, config.max_calls, config.budget_usd, self.option)

    def _key(self) -> str:
        """`none` where none is needed."""
        local = all(map(_is_local, self._parts))
        missing = f"no API key: set {{}}, or {self.otherwise}"
        return _secret(self.config.api_key_env, "none" if local else "", missing)

    def _headers(self) -> dict[str, str]:
        """Those that hold secrets."""
        key = {} if self._bearer else {self.config.key_header: self._key()}
        more = {header: _secret(name, "", f"no {header}: set {{}}") for header, name in self.config.headers.items()}
        return key | more

    def _client(self, url: str) -> openai.AsyncOpenAI:
        """Closed by `async with`. Retries and time-outs are ours alone."""
        most = self.config.concurrency
        # aiohttp takes half the processor time of httpx2 (benchmarks/README.md); it need not be there.
        transport = openai.DefaultAioHttpClient if find_spec("aiohttp") else openai.DefaultAsyncHttpxClient
        pool = httpx2.Limits(max_connections=most, max_keepalive_connections=most)
        return openai.AsyncOpenAI(
            api_key=self._key() if self._bearer else "none",
            base_url=url,
            max_retries=0,
            timeout=None,
            # Another server that one is sent on to would be given the headers.
            http_client=transport(limits=pool, timeout=None, follow_redirects=False),
            default_headers=self._headers(),
            default_query={"api-version": self.config.api_version} if self.config.api_version else None,
        )

    async def ask(self, messages: Sequence[Message], promise: Promise | None = None) -> Answer:
        """The model's answer; `promise` where the meter gave room for several questions together.

        Raises `Unanswered` where this question has none, `UserError` where no question will have one, `Reached`
        where a limit kept it from being asked at all.
        """
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.config.attempts),
            wait=self._pause,
            retry=retry_if_exception(lambda error: isinstance(error, Fault) and error.passing and not self.finishing),
            reraise=True,
        )
        faults: list[Fault] = []
        try:
            return await retrying(self._once, messages, promise, faults)
        except Fault as fault:
            raise self._meaning(fault) from None
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
        failed = faults[-1].server if faults else None
        try:
            # Room first: whoever waits for it must not keep a place from those who have room.
            async with self.meter.promised(messages, promise) as room, self.pool.place(failed) as server:
                with self._metered(messages, room) as count:
                    started = time.monotonic()
                    async with asyncio.timeout(self.config.timeout_seconds):
                        # `chat.completions.create` takes as long again to check what it sends and receives.
                        response = await server.client.post(
                            "/chat/completions",
                            cast_to=httpx2.Response,
                            body=body,
                            options={} if self._bearer else {"headers": {"Authorization": openai.omit}},
                        )
                    answer = _read(response.json(), time.monotonic() - started)
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

    def _pause(self, state: RetryCallState) -> float:
        """Seconds before the next attempt: exponential with jitter, none where the server asked all to wait."""
        fault = state.outcome.exception() if state.outcome else None
        if isinstance(fault, Fault) and fault.retry_after:  # 0 asks for nothing
            return 0
        return wait_random_exponential(multiplier=self.config.backoff_seconds, max=LONGEST_PAUSE)(state)

    def _meaning(self, fault: Fault) -> Exception:
        status, error = fault.status, fault.error
        secrets = ", ".join([self.config.api_key_env, *self.config.headers.values()])
        remedies = {
            401: f"it does not accept the API key: check {secrets}",
            403: f"the API key in {self.config.api_key_env} may not use model '{self.config.model}'",
            404: f"no model '{self.config.model}' or no API there: check the model's name and base_url",
            **dict.fromkeys((301, 302, 303, 307, 308), "the API is elsewhere, and keys are not sent on: set base_url"),
        }
        if status in remedies:
            return UserError(f"{self.role} endpoint {fault.server.name} answered {status}: {remedies[status]}")
        if fault.setting in _REFUSED_SETTINGS:
            setting = _REFUSED_SETTINGS[fault.setting]
            return UserError(f"model '{self.config.model}' refuses {fault.setting}: set the {self.role}'s {setting}")
        if fault.code == "insufficient_quota":
            return UserError(
                f"{self.role} endpoint {fault.server.name} answered {status}: the account's quota is used up"
            )
        if fault.unreadable:
            return Unanswered("unparsable", failure=True)
        if fault.lost:
            return Unanswered("api error: APIConnectionError", failure=True)
        if status == 413 or fault.code == "context_length_exceeded" or _TOO_LONG.search(str(error)):
            return Unanswered("too long")
        if fault.code in ("content_filter", "content_policy_violation"):
            return Unanswered("refused")
        return Unanswered(f"api error: {type(error).__name__} {status or ''}".strip(), failure=True)


def _secret(variable: str, otherwise: str, missing: str) -> str:
    """What the environment variable holds, or `otherwise`; raises `UserError` where that is empty."""
    secret = os.environ.get(variable, "").strip() or otherwise
    if not secret:
        raise UserError(missing.format(variable))
    if not (secret.isascii() and secret.isprintable()):
        raise UserError(f"{variable} holds characters that no HTTP header may carry: set it again")
    return secret


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


def _is_local(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
    )


def _count(usage: Any, name: str) -> int:
    """Tokens; 0 where it is no number of them."""
    count = _part(usage, name, int) or 0
    return count if 0 <= count <= _MOST_TOKENS else 0


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
