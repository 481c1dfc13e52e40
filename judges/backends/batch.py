"""OpenAI's Batch API: questions go up in one file and are answered within 24 hours, at half the price.

A batch stands where an endpoint has its connection: `Batch` asks as `Endpoint` does, only that its client's transport
puts the requests into batches. So limits, retries, and what an answer or an error means are the endpoint's.

Nothing is noted on this side. A batch says in its metadata that it is ours, and a request's `custom_id` is a hash of
the request: whoever asks the same again, after a crash too, is given what is there, and pays for nothing twice. (Two
that ask at the same time do not see each other.)

Source: developers.openai.com/api/docs/guides/batch and the types of openai 3. Untested on OpenAI itself.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from itertools import count
from typing import Any, Literal, NamedTuple, TypeVar

import httpx2
import openai
from openai.types import Batch as Submitted
from pydantic import Field
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.types import Message, content_key
from judges.backends import Answer, Ask, Unanswered
from judges.backends.endpoint import Endpoint, EndpointConfig
from judges.backends.pool import LONGEST_PAUSE, Fault, Server
from judges.backends.spending import Meter, Promise

T = TypeVar("T")

MOST_QUESTIONS, MOST_BYTES = 50_000, 200_000_000
"""Of one batch."""
MADE_BY = "dadpo-bench"
_QUESTION: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_JSON = {"content-type": "application/json"}
_MOMENT, _FIRST_PAUSE = 0.05, 1.0
"""Seconds between looks at who waits, and between the first two looks at a batch."""
_ATTEMPTS, _LONGEST_CALL = 20, 600.0
"""Of a request about files and batches; seconds. Twenty attempts outlast a quarter of an hour without a network."""

_LONGEST_STATUS = 20

_UNSAID = {"completed": "batch_incomplete", "expired": "batch_expired", "cancelled": "batch_cancelled"}
"""How a batch ended, and the error of its questions that neither of its files answers; the last two are OpenAI's."""
_STATUS = {"batch_incomplete": 500, "batch_expired": 408, "batch_cancelled": 410}
"""As an endpoint would have answered: the first two are asked again, of what somebody cancelled nothing is."""


class BatchConfig(EndpointConfig):
    """Which model to ask, where, and in batches of what size; half of the model's price, if none is given.

    Only model, temperature and token limit decide what it answers.
    """

    concurrency: int = Field(
        10_000,
        ge=1,
        le=MOST_QUESTIONS,
        description="Questions of one batch; more than these are asked in batches one after the other. Fewer after a "
        "batch that expired.",
    )
    timeout_seconds: float = Field(172_800.0, gt=0, description="Limit on the wait for one answer, seconds.")
    attempts: int = Field(
        3, ge=1, description="Batches that a question is put into: where it expires, or fails with 429 or 5xx."
    )
    poll_seconds: float = Field(
        60.0, gt=0, description="Seconds between looks at a batch; the first ones follow each other faster."
    )
    collect_days: float = Field(
        7.0,
        ge=0,
        description="Age in days up to which an ended batch's answers are collected, not asked and paid for again. "
        "0: only batches that still go on.",
    )


class Batch(Endpoint):
    """A chat endpoint with a Batch API, of one server. Raises `UserError` as `Endpoint` does.

    An answer that is collected counts in limits and bill like one that is asked for: they hold over all tries of a
    command that is killed and run again.
    """

    config: BatchConfig
    repeatable = True

    def __init__(self, config: BatchConfig, *, key: bool = True) -> None:
        super().__init__(config, key=key)
        if self.pool.servers[1:]:
            raise UserError("a batch goes to one server: give one base_url, or set backend to endpoint")
        self.taken: set[str] = set()
        """Requests that were answered, or are being asked: an equal question is another request."""
        self.pending: set[str] = set()
        """Requests that the server has, and has not answered yet."""
        self.collected = 0
        """Answers to an earlier run's requests."""
        self._within: set[asyncio.Task[Any] | None] = set()

    @property
    def all_wait(self) -> bool:
        """Whether nobody is left who could still ask something: for an answer, for room, or for a place they wait."""
        return all(task.done() or task in self._within for task in self.tasks)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        task = asyncio.current_task()
        self._within.add(task)
        try:
            yield
        finally:
            self._within.discard(task)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ask]:
        """With what earlier batches hold at hand. Ends with `WorkError` or `UserError` where the server fails."""
        async with super().opened() as asked:
            (server,) = self.pool.servers
            post = _Post(self, server)
            await post.recall()
            server.client = client = server.client.copy(http_client=httpx2.AsyncClient(transport=post))
            await client.get("/", cast_to=httpx2.Response)  # a first request waits for a thread, out of our sight

            async def ask(messages: Sequence[Message], promise: Promise | None = None) -> Answer:
                with self._waiting():
                    answer = await asked(messages, promise)
                    earlier = asyncio.current_task() in post.collectors
                return answer._replace(seconds=0.0, earlier=earlier)

            async with client:
                running = asyncio.create_task(post.run())
                try:
                    yield ask
                finally:
                    running.cancel()
                    await asyncio.wait([running])
                    error = None if running.cancelled() else running.exception()
                if error and not self.finishing:  # what cannot be had at the end is collected another time
                    raise error

    @asynccontextmanager
    async def promise(self, questions: Sequence[Sequence[Message]]) -> AsyncIterator[Promise]:
        """By the meter."""
        async with AsyncExitStack() as stack:
            with self._waiting():
                promise = await stack.enter_async_context(super().promise(questions))
            yield promise

    def estimate(self, samples: Sequence[Sequence[Message]], count: int) -> str:
        """Calls, tokens, USD, and how long it may take."""
        return f"{super().estimate(samples, count)}; a batch takes up to 24 hours"

    def bill(self) -> str:
        """Calls, tokens, USD, and what is not collected yet."""
        told = [super().bill()]
        if self.collected:
            told.append(f"{self.collected:,} of them answered in batches of earlier runs")
        if self.pending:
            told.append(
                f"batches go on at {self.host} with {len(self.pending):,} of them: the same command collects these"
            )
        return "; ".join(told)

    def _meter(self) -> Meter:
        meter = super()._meter()
        if meter.price and self.config.usd_per_million is None:
            half = {"input": meter.price.input / 2, "output": meter.price.output / 2}
            meter.price = meter.price.model_copy(
                update={**half, "source": f"half, as in batches, of {meter.price.source}"}
            )
        return meter

    def _pause(self, state: RetryCallState) -> float:
        """None: the next batch is pause enough, and those that are in it go together."""
        return 0.0

    def _meaning(self, fault: Fault) -> Exception:
        if fault.code in _STATUS:
            return Unanswered(f"api error: {fault.code}", failure=True)
        return super()._meaning(fault)

    def refusal(self, fault: Fault) -> Exception:
        """What an error means that no question is to blame for."""
        remedies = {
            403: f"the API key in {self.config.api_key_env} may not use files and batches",
            404: "it has no Batch API: set backend to endpoint",
        }
        if fault.status in remedies:
            return UserError(f"judge {self.name} answered {fault.status}: {remedies[fault.status]}")
        meaning = self._meaning(fault)
        return self.failure(str(meaning)) if isinstance(meaning, Unanswered) else meaning

    def failure(self, what: str) -> WorkError:
        """Of the server."""
        return WorkError(f"judge {self.name} takes no batches now ({what}): run the same command again")

    def invalid(self, batch: Submitted) -> Exception:
        """Why a batch was not begun; its code alone, whose words may be anything."""
        errors = batch.errors.data if batch.errors else None
        code = next((error.code for error in errors or () if re.fullmatch("[a-z_]{1,40}", error.code or "")), "")
        if code == "token_limit_exceeded":
            return UserError(
                f"judge {self.name} takes no more tokens in batches at once: set judge_settings.concurrency to fewer "
                f"questions than {self.config.concurrency:,}, or wait until other batches have ended"
            )
        if code == "model_not_found":
            return UserError(f"judge {self.name} has no model '{self.config.model}' for batches")
        return self.failure(f"a batch is invalid: {code or 'without a code'}")


class _Said(NamedTuple):
    """What came back of one request, as an endpoint would have answered it."""

    status: int
    body: Any

    @property
    def is_completion(self) -> bool:
        """Whether there is an answer to read. What is none is asked again: it would be none for ever."""
        return self.status == 200 and isinstance(self.body, dict) and isinstance(self.body.get("choices"), list)


class _Post(httpx2.AsyncBaseTransport):
    """Takes requests, puts them into batches and waits for these: an answer comes when its batch has ended."""

    def __init__(self, backend: Batch, server: Server) -> None:
        self._backend, self._server, self._config = backend, server, backend.config
        self._client = server.client
        """Of files and batches."""
        self._metadata = {"made_by": MADE_BY, "model": self._config.model}
        self._gathered: dict[str, bytes] = {}
        """By the request's id the line of the file that goes up next."""
        self._awaited: dict[str, asyncio.Future[_Said]] = {}
        self._running: dict[str, set[str]] = {}
        """By the batch's id the requests in it."""
        self._earlier: dict[str, _Said] = {}
        """Answers of batches that ended before."""
        self._told: dict[str, str] = {}
        """By the batch's id what was last told of it."""
        self._submitted: set[str] = set()
        self._over = False
        self.collectors: set[asyncio.Task[Any] | None] = set()
        """Whose last answer was one to an earlier run's request."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Of a question what the endpoint answered to it, whenever that is."""
        if request.method == "GET":
            return httpx2.Response(204, request=request)
        content, taken, asker = await request.aread(), self._backend.taken, asyncio.current_task()
        key = self._key(json.loads(content))
        taken.add(key)
        self.collectors.discard(asker)
        said = None
        try:
            said = self._earlier.pop(key, None) or await self._answer(key, content)
        finally:
            if said is None or said.status != 200:
                taken.discard(key)  # asked again it is the same request
        if said.status == 200 and key not in self._submitted:
            self.collectors.add(asker)
            self._backend.collected += 1
        return httpx2.Response(said.status, content=json.dumps(said.body).encode(), headers=_JSON, request=request)

    def _key(self, body: Any) -> str:
        """Of the first request with this body that is not taken."""
        keys = (content_key("batch", body, self._backend.draw, number) for number in count())
        return next(key for key in keys if key not in self._backend.taken)

    async def _answer(self, key: str, content: bytes) -> _Said:
        if self._backend.finishing or self._over:
            raise asyncio.CancelledError  # nobody would look after it
        future: asyncio.Future[_Said] = asyncio.get_running_loop().create_future()
        self._awaited[key] = future
        if any(key in asked for asked in self._running.values()):
            self._backend.pending.add(key)
        else:
            head = f'{{"custom_id": "{key}", "method": "POST", "url": "{_QUESTION}", "body": '
            self._gathered[key] = head.encode() + content + b"}\n"
        try:
            return await future
        finally:
            del self._awaited[key]
            self._gathered.pop(key, None)

    async def recall(self) -> None:
        """What batches of this model hold already, made by whatever run."""
        oldest = time.time() - self._config.collect_days * 86_400
        for batch in await self._call(self._ours):
            if batch.status not in (*_UNSAID, "failed"):
                self._running[batch.id] = await self._asked(batch)
            elif batch.status != "failed" and (batch.created_at or 0) >= oldest:
                answers = await self._answers(batch.output_file_id)
                self._earlier |= {key: said for key, said in answers.items() if said.is_completion}

    async def run(self) -> None:
        """Look after all requests until the backend is to finish; those without an answer are cancelled then.

        Raises `UserError` and `WorkError`.
        """
        try:
            await self._run()
        finally:
            self._over = True
            for future in self._awaited.values():
                future.cancel()

    async def _run(self) -> None:
        """Submit what is gathered as soon as nobody is left to add to it; look at batches now and then."""
        loop = asyncio.get_running_loop()
        before, pause, due = 0, 0.0, loop.time()
        while not self._backend.finishing:
            await asyncio.sleep(_MOMENT)
            if self._gathered and len(self._gathered) == before and self._backend.all_wait:
                await self._submit()
                pause, due = 0.0, loop.time()
            before = len(self._gathered)
            if loop.time() >= due:
                await self._look()
                pause = min(self._config.poll_seconds, 2 * pause or _FIRST_PAUSE)
                due = loop.time() + pause
        await self._look()

    async def _submit(self) -> None:
        for lines in _files(self._gathered):
            content = ("questions.jsonl", b"".join(lines.values()))
            file = await self._call(partial(self._client.files.create, file=content, purpose="batch"))
            batch = await self._create(file.id)
            self._running[batch.id] = set(lines)
            self._submitted |= set(lines)
            self._backend.pending |= set(lines)
            for key in lines:
                self._gathered.pop(key, None)

    async def _create(self, file: str) -> Submitted:
        """Once: a try whose answer was lost may have made it, so the next one looks first."""
        tried = False

        async def once() -> Submitted:
            nonlocal tried
            for batch in await self._ours() if tried else ():
                if batch.input_file_id == file:
                    return batch
            tried = True
            return await self._client.batches.create(
                completion_window="24h", endpoint=_QUESTION, input_file_id=file, metadata=self._metadata
            )

        return await self._call(once)

    async def _ours(self) -> list[Submitted]:
        pages = self._client.batches.list(limit=100)
        return [batch async for batch in pages if self._metadata.items() <= (batch.metadata or {}).items()]

    async def _look(self) -> None:
        """Hand out what has come of the batches that somebody waits for."""
        for name, asked in list(self._running.items()):
            if asked.isdisjoint(self._awaited):
                continue
            batch = await self._call(partial(self._client.batches.retrieve, name))
            if batch.status == "failed":
                self._backend.pending -= asked
                raise self._backend.invalid(batch)
            if batch.status in _UNSAID:
                said = await self._answers(batch.output_file_id) | await self._answers(batch.error_file_id)
                del self._running[name]
                self._backend.pending -= asked
                for key, future in list(self._awaited.items()):
                    if key in asked and not future.done():
                        future.set_result(said.get(key) or _failed(_UNSAID[batch.status]))
            else:
                self._tell(batch)

    def _tell(self, batch: Submitted) -> None:
        """How far it has come, where that is news."""
        done, total = (getattr(batch.request_counts, name, None) for name in ("completed", "total"))
        far = f", {done:,} of {total:,} done" if isinstance(done, int) and isinstance(total, int) else ""
        told = f"a batch is {str(batch.status)[:_LONGEST_STATUS]}{far}"
        if self._told.get(batch.id) != told:
            self._told[batch.id] = told
            self._backend.tell(told)

    async def _asked(self, batch: Submitted) -> set[str]:
        lines = await self._lines(batch.input_file_id)
        if lines is None:
            raise self._backend.failure("one made before goes on, and its questions cannot be read")
        return {_id(line) for line in lines}

    async def _answers(self, file: str | None) -> dict[str, _Said]:
        return {_id(line): _said(line) for line in (await self._lines(file) if file else None) or ()}

    async def _lines(self, file: str) -> list[Any] | None:
        """Of a file of JSON lines; None where it is gone."""

        async def content() -> bytes | None:
            try:
                return (await self._client.files.content(file)).content
            except openai.NotFoundError:
                return None

        read = await self._call(content)
        return None if read is None else [line for line in map(_loaded, read.splitlines()) if isinstance(line, dict)]

    async def _call(self, request: Callable[[], Awaitable[T]]) -> T:
        """A request about files and batches. Raises `UserError` and `WorkError`."""

        async def once() -> T:
            try:
                async with asyncio.timeout(_LONGEST_CALL):
                    return await request()
            # `from None`: the original holds the request and its headers.
            except (openai.OpenAIError, TimeoutError, ValueError, RecursionError) as error:
                raise Fault(self._server, error) from None

        retrying = AsyncRetrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=self._config.backoff_seconds, max=LONGEST_PAUSE),
            retry=retry_if_exception(
                lambda error: isinstance(error, Fault) and error.passing and not self._backend.finishing
            ),
            reraise=True,
        )
        try:
            return await retrying(once)
        except Fault as fault:
            raise self._backend.refusal(fault) from None
        except (AttributeError, TypeError):  # what came back is of another form
            raise self._backend.failure("unparsable") from None


def _files(lines: dict[str, bytes]) -> Iterator[dict[str, bytes]]:
    """Files that a batch may have."""
    file: dict[str, bytes] = {}
    size = 0
    for key, line in list(lines.items()):
        if size + len(line) > MOST_BYTES and file:
            yield file
            file, size = {}, 0
        file[key] = line
        size += len(line)
    if file:
        yield file


def _loaded(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _id(line: Any) -> str:
    return str(line.get("custom_id"))


def _said(line: Any) -> _Said:
    """Of a line of an output or error file; any part may be missing, or be anything."""
    response, error = line.get("response"), line.get("error")
    if isinstance(response, dict):
        status = response.get("status_code")
        return _Said(status if isinstance(status, int) and 200 <= status < 600 else 500, response.get("body"))
    code = error.get("code") if isinstance(error, dict) else None
    return _failed(code if code in _STATUS else "batch_incomplete")


def _failed(code: str) -> _Said:
    return _Said(_STATUS[code], {"error": {"code": code}})
