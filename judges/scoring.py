"""Log-probs of token ids by a model behind an endpoint: what vLLM and SGLang are sent, and what they answer.

Sources: vLLM's `entrypoints/openai/completion/serving.py` (`prompt_logprobs` of a completion: one object a prompt
token, by token id, the first null) and SGLang's `srt/managers/io_struct.py` with its endpoint tests (`/generate`:
`input_token_logprobs`, as many as there are tokens from `logprob_start_len` on, the first null).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal

from pydantic import Field, ValidationError

from dadpo_bench.errors import UserError
from dadpo_bench.recipe import explain
from dadpo_bench.types import Continuation, JsonObject, Prompt
from judges.backends import Unanswered
from judges.backends.asking import Asking
from judges.backends.pool import Fault, Server
from judges.backends.servers import Servers, ServersConfig, root

VERSION = 1
"""Part of every signal's key: raise it when a change here moves log-probs."""

_IMPOSSIBLE = -9999.0
"""What vLLM writes for −∞."""

Read = Callable[[Any], Any]
"""Of what a server answers; raises `ValueError` where it is none, `UserError` where it is not to what was asked."""
Ask = Callable[[str, JsonObject, Read, Server | None], Awaitable[Any]]
"""Path beside the API, body, what to make of the answer, and the only server that may be asked."""


class ScoringConfig(ServersConfig):
    """Which model scores, where and how."""

    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    protocol: Literal["vllm", "sglang"] = Field(description="What the server speaks beside OpenAI's protocol.")


class _Servers(Servers[[str, JsonObject, Read, Server | None], Any]):
    role = "teacher"
    otherwise = "name the variable that holds it by teacher.api_key_env"
    address = "teacher.endpoint"
    key_setting = "teacher.api_key_env"
    config: ScoringConfig

    @property
    def model(self) -> str:
        return self.config.model

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ask]:
        async with self.connected():
            yield self._ask

    async def _ask(self, path: str, body: JsonObject, read: Read, only: Server | None) -> Any:
        if only is not None and only.rests:
            raise Unanswered("not up")
        return await self.attempted(partial(self._once, path, body, read, only), [])

    async def _once(self, path: str, body: JsonObject, read: Read, only: Server | None, faults: list[Fault]) -> Any:
        task = asyncio.current_task()
        try:
            async with self.place(faults, only) as server:
                self.in_flight.add(task)
                try:
                    return read(await self.sent(server, root(server.url) + path, body))
                finally:
                    self.in_flight.discard(task)
        except Fault as fault:
            faults.append(fault)
            raise

    def _meaning(self, fault: Fault) -> Exception:
        meaning = super()._meaning(fault)
        if fault.status in (400, 405, 422) and isinstance(meaning, Unanswered) and meaning.failure:
            return UserError(
                f"teacher endpoint {fault.server.address} refuses what it is asked ({fault.status}): check that it "
                f"speaks teacher.protocol ({self.config.protocol}), gives log-probs of prompts, and has the vocabulary "
                "of teacher.tokenizer"
            )
        return meaning


class Scoring:
    """See `dadpo_bench.types.TokenScorer`."""

    version = VERSION

    def __init__(self, settings: JsonObject, *, key: bool = True) -> None:
        try:
            config = ScoringConfig.model_validate(dict(settings))
        except ValidationError as error:
            raise UserError(explain(error, "teacher", list(ScoringConfig.model_fields))) from error
        self._source = _Servers(config, key=key)
        self._asking = Asking(self._source)
        self.servers = [server.address for server in self._source.pool.servers]
        self._requests = self._tokens = 0

    def scores(
        self, batches: Sequence[Sequence[Continuation]], server: int | None = None, salt: str = ""
    ) -> Generator[tuple[int, list[list[float]] | str], None, None]:
        """As of `TokenScorer`."""
        path, send, read = _PROTOCOLS[self._source.config.protocol]
        only = None if server is None else self._source.pool.servers[server]
        salted = {"cache_salt": salt} if salt else {}  # both have it by this name; older ones do not know it

        async def scored(ask: Ask, batch: Sequence[Continuation]) -> list[list[float]] | str:
            body = {**send(self._source.model, batch), **salted}
            found: list[list[float]] = await ask(path, body, partial(read, batch), only)
            self._requests += 1
            self._tokens += sum(continuation.tokens for continuation in batch)
            return found

        return self._asking.all(batches, scored, _reason)

    def prompt_tokens(self, prompts: Sequence[Prompt]) -> Generator[tuple[int, int | str], None, None]:
        """As of `TokenScorer`; a chat completion of one token tells."""

        async def counted(ask: Ask, prompt: Prompt) -> int | str:
            messages = [message.model_dump() for message in prompt.messages()]
            body = {"model": self._source.model, "messages": messages, "max_tokens": 1, "temperature": 0}
            found: int | str = await ask("/v1/chat/completions", body, _prompt_tokens, None)
            return found

        return self._asking.all(prompts, counted, _reason)

    def finish(self) -> None:
        """Ask nothing more; what is in flight is still yielded."""
        self._asking.finish()

    def bill(self) -> str:
        """Requests and tokens; and which servers were left out."""
        return f"{self._requests:,} requests, {self._tokens:,} tokens read{self._source.left_out}"


def _prompt_tokens(completion: Any) -> int | str:
    usage = completion.get("usage") if isinstance(completion, dict) else None
    counted = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return counted if isinstance(counted, int) else "the server counts no tokens"


def _reason(why: Unanswered) -> str:
    return why.reason


def to_vllm(model: str, batch: Sequence[Continuation]) -> JsonObject:
    """The body of `/v1/completions`. Of K = 0 likeliest tokens beside the prompt's own, so nothing is cut off."""
    return {
        "model": model,
        "prompt": [[*continuation.prompt, *continuation.ids] for continuation in batch],
        "max_tokens": 1,  # the fewest that it takes
        "temperature": 0,
        "prompt_logprobs": 0,
    }


def from_vllm(batch: Sequence[Continuation], completion: Any) -> list[list[float]]:
    """Log-prob of every token of every continuation."""
    choices = sorted(_listed(completion, "choices"), key=lambda choice: int(choice["index"]))
    _same_number(len(choices), len(batch))
    found = []
    for continuation, choice in zip(batch, choices, strict=True):
        positions = choice.get("prompt_logprobs")
        if positions is None:
            raise UserError("the teacher's server gives no prompt_logprobs: is it vLLM, as the recipe says?")
        _uncut(len(positions), continuation.tokens)
        places = positions[len(continuation.prompt) :]
        found.append(_finite(_of_id(place, token) for place, token in zip(places, continuation.ids, strict=True)))
    return found


def _of_id(place: Any, token: int) -> Any:
    if not isinstance(place, dict) or str(token) not in place:
        raise _other_ids()
    return place[str(token)]["logprob"]


def to_sglang(_model: str, batch: Sequence[Continuation]) -> JsonObject:
    """The body of `/generate`. Its first position is null, so it starts one early."""
    return {
        "input_ids": [[*continuation.prompt, *continuation.ids] for continuation in batch],
        "sampling_params": {"temperature": 0, "max_new_tokens": 0},
        "return_logprob": True,
        "logprob_start_len": [len(continuation.prompt) - 1 for continuation in batch],
    }


def from_sglang(batch: Sequence[Continuation], generated: Any) -> list[list[float]]:
    """Log-prob of every token of every continuation."""
    answers = generated if isinstance(generated, list) else [generated]
    _same_number(len(answers), len(batch))
    found = []
    for continuation, answer in zip(batch, answers, strict=True):
        positions = answer["meta_info"].get("input_token_logprobs")
        if positions is None:
            raise UserError(
                "the teacher's server gives no input_token_logprobs: is it SGLang, as teacher.protocol says?"
            )
        _uncut(len(positions), len(continuation.ids) + 1)
        if [int(place[1]) for place in positions] != [continuation.prompt[-1], *continuation.ids]:
            raise _other_ids()
        found.append(_finite(place[0] for place in positions[1:]))
    return found


def _parsed(read: Callable[[Sequence[Continuation], Any], list[list[float]]]) -> Any:
    """`read`, with every other shape than the documented one a `ValueError`."""

    def parsed(batch: Sequence[Continuation], whole: Any) -> list[list[float]]:
        try:
            return read(batch, whole)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError("not as documented") from error

    return parsed


_PROTOCOLS: dict[str, tuple[str, Callable[[str, Sequence[Continuation]], JsonObject], Any]] = {
    "vllm": ("/v1/completions", to_vllm, _parsed(from_vllm)),
    "sglang": ("/generate", to_sglang, _parsed(from_sglang)),
}


def _listed(whole: Any, name: str) -> list[Any]:
    part = whole.get(name) if isinstance(whole, dict) else None
    if not isinstance(part, list):
        raise ValueError(f"no {name}")
    return part


def _same_number(found: int, asked: int) -> None:
    if found != asked:
        raise ValueError(f"{found} answers to {asked} sequences")


def _uncut(found: int, asked: int) -> None:
    if found != asked:
        raise UserError(
            f"the teacher's server gives {found} log-probs where {asked} were asked for: it cuts sequences, or lacks "
            "the last ones; raise its context length, and let it truncate nothing"
        )


def _other_ids() -> UserError:
    return UserError(
        "the teacher's server tells of other token ids than it was sent: is its tokenizer the one that "
        "teacher.tokenizer names?"
    )


def _finite(values: Iterable[Any]) -> list[float]:
    found = list(values)
    if not all(isinstance(value, int | float) and math.isfinite(value) and value > _IMPOSSIBLE for value in found):
        raise UserError(
            "the teacher's server gives a token no finite log-prob: no preference can be learnt from that; is its "
            "vocabulary that of teacher.tokenizer?"
        )
    return [float(value) for value in found]
