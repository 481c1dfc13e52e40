"""A server that speaks OpenAI's, vLLM's and SGLang's protocols as they are documented, on a model of this machine.

What it is told to do wrong it does wrong: scores that depend on what was asked before, a coarser number format, a lost
token, a beginning-of-text token of its own, another template, failures, slowness, a short context.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dadpo_bench.models import Branching, Precision, chat_tokenizer, continuations, load_model, token_scores
from dadpo_bench.models.sampling import Draw
from dadpo_bench.types import Finish, Message

MODEL = "org/big"
FP32 = Precision(torch.float32, torch.float32)


@dataclass
class Knobs:
    """What it does wrong."""

    prefix_cache: bool = False
    """Of a prefix that was read before the log-probs are another request's, as in vLLM's issue 42019."""
    coarse: float = 0.0
    """Log-probs are rounded to so much, as a coarser number format would have them."""
    lost_tokens: int = 0
    """Missing at the end."""
    own_bos: bool = False
    """A token of its own stands before the ids that it is sent, unseen in the answer."""
    other_ids: bool = False
    """It tells of other ids than it was sent."""
    chat_template: str | None = None
    context: int = 10**9
    statuses: list[int] = field(default_factory=list)
    """Of the next requests, instead of an answer."""
    healthy: bool = True
    key: str = ""
    """Asked of every request under /v1, as vLLM's --api-key."""
    seconds: float = 0.0
    """That every answer takes."""
    prompt_logprobs: bool = True
    """Whether it knows them; a plain OpenAI-compatible server does not."""


class TeacherServer:
    """Answers on 127.0.0.1 and notes what it was asked."""

    def __init__(self, directory: Path, knobs: Knobs, precision: Precision = FP32) -> None:
        self.knobs = knobs
        self._precision = precision
        self.port = 0
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self._directory = directory
        self._tokenizer = chat_tokenizer(str(directory))
        self._model = load_model(directory, precision)
        self._read: list[tuple[str, tuple[int, ...]]] = []
        self._lock = threading.Lock()
        routes = {
            "/health": self._health,
            "/v1/models": self._models,
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._completions,
            "/generate": self._generate,
        }
        self.app = Starlette(routes=[Route(path, run, methods=["GET", "POST"]) for path, run in routes.items()])

    @property
    def url(self) -> str:
        """Without the API's /v1."""
        return f"http://127.0.0.1:{self.port}"

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """Of the requests there, in order."""
        return [body for asked, body in self.asked if asked == path]

    @property
    def scored(self) -> int:
        """Sequences whose log-probs were asked for."""
        return sum(len(body["prompt"]) for body in self.bodies("/v1/completions")) + sum(
            len(body["input_ids"]) for body in self.bodies("/generate")
        )

    async def _health(self, _: Request) -> Response:
        return Response(status_code=200 if self.knobs.healthy else 503)

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def _taken(self, request: Request) -> dict[str, Any] | Response:
        body: dict[str, Any] = await request.json()
        self.asked.append((request.url.path, body))
        self.headers.append(dict(request.headers))
        if self.knobs.seconds:
            await asyncio.sleep(self.knobs.seconds)
        if self.knobs.key and request.headers.get("authorization") != f"Bearer {self.knobs.key}":
            return _error(401, "Unauthorized")
        if self.knobs.statuses:
            return _error(self.knobs.statuses.pop(0), "told to")
        if body.get("model", MODEL) != MODEL:
            return _error(404, f"The model `{body['model']}` does not exist.")
        return body

    async def _chat(self, request: Request) -> Response:
        body = await self._taken(request)
        if isinstance(body, Response):
            return body
        return await asyncio.to_thread(self._chatted, body)

    def _chatted(self, body: dict[str, Any]) -> Response:
        tokenizer = chat_tokenizer(str(self._directory), self.knobs.chat_template)
        messages = [Message.model_validate(message) for message in body["messages"]]
        ids = tokenizer.prompt_ids(messages)
        if len(ids) + body["max_tokens"] > self.knobs.context:
            return _error(400, f"This model's maximum context length is {self.knobs.context} tokens.")
        seed = (
            [Draw(body["temperature"], body.get("top_p", 1.0), [body.get("seed") or 0])] if body["temperature"] else []
        )
        with self._lock:
            (reply,) = continuations(self._model, tokenizer, [ids], body["max_tokens"], seed)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": reply.text},
            "finish_reason": "stop" if reply.finish is Finish.stop else "length",
        }
        if body.get("return_token_ids"):
            choice["token_ids"] = list(reply.token_ids)
        counted = len(reply.token_ids)
        usage = {"prompt_tokens": len(ids), "completion_tokens": counted, "total_tokens": len(ids) + counted}
        return JSONResponse({"object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage})

    async def _completions(self, request: Request) -> Response:
        body = await self._taken(request)
        if isinstance(body, Response):
            return body
        sequences = body["prompt"]
        if longest := self._too_long(sequences, body["max_tokens"]):
            return _error(
                400, f"This model's maximum context length is {self.knobs.context} tokens, and there are {longest}."
            )
        choices = []
        for index, scores in enumerate(await asyncio.to_thread(self._scores, sequences, body.get("cache_salt", ""))):
            choice: dict[str, Any] = {"index": index, "text": "x", "finish_reason": "length"}
            if self.knobs.prompt_logprobs:
                places = [
                    {str(token): {"logprob": max(score, -9999.0), "rank": 3, "decoded_token": "x"}}
                    for token, score in zip(self._told(sequences[index])[1:], scores, strict=False)
                ]
                choice["prompt_logprobs"] = self._cut([None, *places])
            choices.append(choice)
        return JSONResponse({"object": "text_completion", "model": MODEL, "choices": choices, "usage": {}})

    async def _generate(self, request: Request) -> Response:
        body = await self._taken(request)
        if isinstance(body, Response):
            return body
        sequences, starts = body["input_ids"], body["logprob_start_len"]
        if longest := self._too_long(sequences, 1):
            told = f"The input ({longest} tokens) is longer than the model's context length"
            return _error(400, f"{told} ({self.knobs.context} tokens).")
        answers = []
        for ids, start, scores in zip(
            sequences, starts, await asyncio.to_thread(self._scores, sequences, body.get("cache_salt", "")), strict=True
        ):
            values = [None, *scores[start:]]
            told = self._told(ids)[start:]
            meta = {"prompt_tokens": len(ids), "completion_tokens": 0}
            if body["return_logprob"]:
                meta["input_token_logprobs"] = self._cut([[v, t, None] for v, t in zip(values, told, strict=False)])
            answers.append({"text": "", "meta_info": meta})
        return JSONResponse(answers)

    def _too_long(self, sequences: list[list[int]], new: int) -> int:
        longest = max(map(len, sequences))
        return longest if longest + new > self.knobs.context else 0

    def _cut(self, places: list[Any]) -> list[Any]:
        return places[: len(places) - self.knobs.lost_tokens]

    def _told(self, ids: list[int]) -> list[int]:
        return [token + 1 for token in ids] if self.knobs.other_ids else ids

    def _scores(self, sequences: list[list[int]], salt: str = "") -> list[list[float]]:
        """Of every token but the first."""
        knobs = self.knobs
        before = [self._tokenizer.end_of_turn_id] if knobs.own_bos else []
        with self._lock:
            rows = token_scores(
                self._model, [Branching([*before, ids[0]], [ids[1:]]) for ids in sequences], self._precision
            )
            found = [row[0] for row in rows]
            if knobs.coarse:
                found = [[round(score / knobs.coarse) * knobs.coarse for score in scores] for scores in found]
            if knobs.prefix_cache:
                found = [self._stale(salt, tuple(ids), scores) for ids, scores in zip(sequences, found, strict=True)]
        return found

    def _stale(self, salt: str, ids: tuple[int, ...], scores: list[float]) -> list[float]:
        """Places of a prefix that was read before are never written: they hold what was there, here always the same."""
        hit = max((_shared(ids, other) for salted, other in self._read if salted == salt), default=0)
        self._read.append((salt, ids))
        return [-0.01 if place < hit - 1 else score for place, score in enumerate(scores)]


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": "BadRequestError", "code": status}}, status)


@contextmanager
def teaching(directory: Path, precision: Precision = FP32, **knobs: Any) -> Iterator[TeacherServer]:
    """A server that is up within."""
    served = TeacherServer(directory, Knobs(**knobs), precision)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        served.port = listening.getsockname()[1]
        server = uvicorn.Server(
            uvicorn.Config(served.app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield served
        finally:
            server.should_exit = True
            thread.join()
