"""Equal HTTP servers behind one name: addresses, keys, clients, health, attempts, and what failures mean.

Keys and headers are read from the environment when clients are made. They are kept nowhere else, and no message
quotes the endpoint's own words, which may repeat them.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import Any, TypeVar

import httpx2
import openai
from pydantic import Field, ValidationInfo, field_validator
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from dadpo_bench.addresses import LOCAL, checked_url, host_of
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.types import Value
from judges.backends import A, P, Source, Unanswered
from judges.backends.pool import LONGEST_PAUSE, Fault, Pool, Server
from judges.backends.spending import OPENAI_HOST
from judges.backends.window import Window

T = TypeVar("T")

OPENAI_URL = f"https://{OPENAI_HOST}/v1"

_TOO_LONG = re.compile(r"context (?:length|size|window)", re.IGNORECASE)
"""vLLM, SGLang and llama.cpp say so in words alone."""
_PROBE_SECONDS = 10.0
"""In which a server says that it is up."""

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


class ServersConfig(Value):
    """Where to ask, and how. Nothing here decides what is answered."""

    base_url: str | tuple[str, ...] = Field(
        "",
        description="URL of the API up to what stands before /chat/completions, mostly …/v1; or a list of URLs of "
        "equal servers, which share the questions: of them the judge's key knows the first one's host. "
        "Empty: $OPENAI_BASE_URL, else OpenAI's own.",
    )
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        description="NAME, in capitals, of the environment variable that holds the API key, never the key itself. "
        "A local endpoint needs none. Empty: none is looked for.",
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
    health: str = Field(
        "",
        pattern=r"^(/[\w./-]*)?$",
        description="Path on the server, such as /health, that tells whether it is up: asked before the first "
        "question, and before a server that was left out is tried again. Empty: none is asked.",
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
    backoff_seconds: float = Field(
        1.0,
        ge=0,
        description="Upper end of the first random pause between attempts, seconds; doubled each time.",
    )

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, variable: str) -> str:
        if variable and not re.fullmatch(_VARIABLE, variable):
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


class Servers(Source[P, A]):
    """One server or several equal ones.

    Raises `UserError` at once for a bad URL, and for a missing key or header where it is to be asked.
    """

    config: ServersConfig
    otherwise = "choose a judge without one, such as pmi"
    """What to do without a key."""
    address = "base_url"
    """The setting that says where it is."""
    key_setting = "api_key_env"
    """The one that says where its key is."""

    def __init__(self, config: ServersConfig, *, key: bool = True) -> None:
        super().__init__()
        self.config = config
        given = config.base_url
        urls = given if isinstance(given, tuple) else (given or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL,)
        if not urls:
            raise UserError(f"{self.address} is an empty list: name a server in it, or leave it out")
        self._parts = [checked_url(url, self.address) for url in urls]
        self.askers = config.concurrency * len(urls)
        names = [parts.netloc for parts in self._parts] if urls[1:] else [self.host]
        self.pool = Pool([Server(url, name, Window(config.concurrency)) for url, name in zip(urls, names, strict=True)])
        self._bearer = config.key_header.lower() == "authorization"
        if key:
            self._key()
            self._headers()

    @property
    def host(self) -> str:
        """The first server's name, which may decide the answer; `local` for this machine, whatever the port."""
        return host_of(self._parts[0])

    @property
    def official(self) -> bool:
        """Whether it is OpenAI's own."""
        return self._parts[0].hostname == OPENAI_HOST

    @property
    def name(self) -> str:
        """By its servers."""
        return f"endpoint {', '.join(server.name for server in self.pool.servers)}"

    @property
    def left_out(self) -> str:
        """Which of several servers were for a while, for the end of a bill; empty where none was."""
        failed = [server.name for server in self.pool.servers if server.left_out and self.pool.servers[1:]]
        return f"; left out for a while: {', '.join(failed)}" if failed else ""

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """With a client for each server. Raises `WorkError` where they are asked for their health and none is up."""
        async with AsyncExitStack() as stack:
            for server in self.pool.servers:
                server.client = await stack.enter_async_context(self._client(server.url))
                stack.callback(delattr, server, "client")
            if self.config.health and not any(await asyncio.gather(*map(self.healthy, self.pool.servers))):
                names = ", ".join(server.address for server in self.pool.servers)
                raise WorkError(
                    f"no {self.role} server is up ({names}): start one, then run the same command again; "
                    "it goes on with what is owed"
                )
            yield

    async def healthy(self, server: Server) -> bool:
        """Whether it says that it is up; it is left out otherwise."""
        try:
            async with self.pool.place(only=server):
                await self._probe(server)
        except Fault:
            return False
        return True

    @asynccontextmanager
    async def place(self, faults: Sequence[Fault], only: Server | None = None) -> AsyncIterator[Server]:
        """As `Pool.place`, for a question that failed so before; a server that was left out must say that it is up."""
        async with self.pool.place(faults[-1].server if faults else None, only) as server:
            if server.on_trial and self.config.health:
                await self._probe(server)
            yield server

    async def sent(self, server: Server, path: str, body: object) -> Any:
        """What a server answers to a request, as JSON. `path` is one of the API, or a whole URL."""
        async with asyncio.timeout(self.config.timeout_seconds):
            # The client's own methods for each path take as long again to check what they send and receive.
            response = await server.client.post(
                path,
                cast_to=httpx2.Response,
                body=body,
                options={} if self._bearer else {"headers": {"Authorization": openai.omit}},
            )
        return response.json()

    async def attempted(self, once: Callable[[list[Fault]], Awaitable[T]], faults: list[Fault]) -> T:
        """What `once` gives, tried again where that may help; it appends what failed to `faults`.

        Raises `Unanswered` where this question has no answer, `UserError` where no question will have one.
        """
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.config.attempts),
            wait=self._pause,
            retry=retry_if_exception(lambda error: isinstance(error, Fault) and error.passing and not self.finishing),
            reraise=True,
        )
        try:
            return await retrying(once, faults)
        except Fault as fault:
            raise self._meaning(fault) from None

    async def _probe(self, server: Server) -> None:
        """Raises as a lost connection does where the server is not up. One that knows no such path is up."""
        request = httpx2.Request("GET", root(server.url) + self.config.health)
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await server.client.get(str(request.url), cast_to=httpx2.Response)
        except TimeoutError:
            raise openai.APIConnectionError(request=request) from None
        except openai.APIStatusError as error:
            if error.status_code >= 500:
                raise openai.APIConnectionError(request=request) from None

    def _key(self) -> str:
        """`none` where none is needed."""
        if not self.config.api_key_env:
            return "none"
        local = all(host_of(parts) == LOCAL for parts in self._parts)
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

    def _pause(self, state: RetryCallState) -> float:
        """Seconds before the next attempt: exponential with jitter, none where the server asked all to wait."""
        fault = state.outcome.exception() if state.outcome else None
        if isinstance(fault, Fault) and fault.retry_after:  # 0 asks for nothing
            return 0
        return wait_random_exponential(multiplier=self.config.backoff_seconds, max=LONGEST_PAUSE)(state)

    def _meaning(self, fault: Fault) -> Exception:
        status, error = fault.status, fault.error
        variables = filter(None, [self.config.api_key_env, *self.config.headers.values()])
        secrets = ", ".join(variables) or f"name the variable that holds it ({self.key_setting})"
        remedies = {
            401: f"it does not accept the API key: check {secrets}",
            403: f"the API key in {self.config.api_key_env or 'no variable'} may not use model '{self.model}'",
            404: f"no model '{self.model}' or no API there: check the model's name and {self.address}",
            **dict.fromkeys(
                (301, 302, 303, 307, 308), f"the API is elsewhere, and keys are not sent on: set {self.address}"
            ),
        }
        if status in remedies:
            return UserError(f"{self.role} endpoint {fault.server.name} answered {status}: {remedies[status]}")
        if fault.setting in _REFUSED_SETTINGS:
            setting = _REFUSED_SETTINGS[fault.setting]
            return UserError(f"model '{self.model}' refuses {fault.setting}: set the {self.role}'s {setting}")
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


def root(url: str) -> str:
    """Of a server whose API is at `url`: where paths beside the API begin."""
    return url.rstrip("/").removesuffix("/v1")


def _secret(variable: str, otherwise: str, missing: str) -> str:
    """What the environment variable holds, or `otherwise`; raises `UserError` where that is empty."""
    secret = os.environ.get(variable, "").strip() or otherwise
    if not secret:
        raise UserError(missing.format(variable))
    if not (secret.isascii() and secret.isprintable()):
        raise UserError(f"{variable} holds characters that no HTTP header may carry: set it again")
    return secret
