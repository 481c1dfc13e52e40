"""A chat model in this process answers: questions are gathered into batches and answered in a thread of their own.

What messages say is data: no control token of the model's own tokenizer can come from it. Untested on a GPU and on
models of more than the embedded one's size.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from pydantic import Field

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.models.generation import SAMPLER_VERSION, continuations, stop_ids
from dadpo_bench.models.loading import find
from dadpo_bench.models.sampling import Draw, Watched
from dadpo_bench.types import Finish, JsonObject, Message
from judges.backends import Answer, Ask, Backend, BackendConfig, Unanswered, storable
from judges.backends.spending import CHARACTERS, Promise, tokens_of
from judges.scoring_model import ScoringModel
from judges.verdicts import Token

_BATCHES = 4
"""Batches of questions that may wait: enough to choose questions of similar length from."""


class LocalConfig(BackendConfig):
    """Which model answers on this machine, and how many questions at a time."""

    model: str = Field(
        min_length=1,
        description="Model that is asked: a directory, a Hugging Face id or the embedded model's name.",
    )
    temperature: float | None = Field(
        0.0,
        ge=0,
        description="Softmax temperature; 0 and null are greedy. Above 0 the same question is drawn anew each time.",
    )
    chat_template: str | None = Field(None, description="Jinja template, for tokenizers that come without one.")
    batch_size: int = Field(
        8,
        ge=1,
        description="Questions answered together. Log-probs shift with the batch by rounding, in bf16 visibly.",
    )

    @property
    def share(self) -> int:
        """As of `BackendConfig`."""
        return _BATCHES * self.batch_size


@dataclass(eq=False)
class _Question:
    messages: Sequence[Message]
    task: asyncio.Task[Any] | None
    answer: asyncio.Future[Answer | Exception]
    """A failure is handed over as a value: whoever was cancelled meanwhile need not fetch it."""

    @property
    def length(self) -> int:
        """Characters."""
        return sum(len(message.content) for message in self.messages)


@dataclass
class _Room:
    """Where the questions of one set wait."""

    thread: ThreadPoolExecutor
    waiting: list[_Question] = field(default_factory=list)
    come: asyncio.Event = field(default_factory=asyncio.Event)
    left: threading.Event = field(default_factory=threading.Event)
    """Nobody wants an answer any more."""


class Local(Backend):
    """A model of this machine. A question that does not fit its context with `max_tokens` to answer is too long.

    The answer's log-probs are the model's own, before temperature. With `max_tokens` 1 they are those of one forward
    pass over the question, which is all that a graded template needs of a model that answers with a letter at once.
    Tokens that read the same alone, as "A" with and without a space in some tokenizers, count together.
    """

    config: LocalConfig
    _asked = _read = _said = 0

    def __init__(self, config: LocalConfig, *, key: bool = True) -> None:
        super().__init__()
        self.config = config
        self.askers = config.share
        path = Path(config.model).expanduser()
        self.model_name = path.resolve().name if path.is_dir() else config.model
        """The hub id, or the directory's own name: where it lies is nobody's business."""
        self._scoring = ScoringModel(partial(find, config.model), config.chat_template)

    def __getstate__(self) -> dict[str, Any]:
        """For another process: what it is. What is open, counted or heard stays here."""
        return {name: vars(self)[name] for name in ("config", "askers", "model_name", "_scoring", "draw")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__()
        vars(self).update(state)

    @property
    def name(self) -> str:
        """By its model."""
        return f"model {self.model_name}"

    def identity(self) -> JsonObject:
        """The model by its content. The size of batches decides nothing but rounding."""
        return {"model": "local", "sampler": SAMPLER_VERSION, **self._scoring.identity()}

    def estimate(self, samples: Sequence[Sequence[Message]], count: int) -> str:
        """Questions and tokens."""
        read = count * sum(map(tokens_of, samples)) / max(1, len(samples))
        return (
            f"{count:,} questions, about {read:,.0f} tokens to read (characters / {CHARACTERS:g}), "
            f"at most {count * self.config.max_tokens:,} to answer, by a local model"
        )

    def bill(self) -> str:
        """Questions and tokens."""
        return f"{self._asked:,} questions, {self._read:,} tokens read, {self._said:,} answered, on this machine"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ask]:
        """With a thread for the model. Leaving it ends a generation at its next token."""
        with ThreadPoolExecutor(1, "judge model") as thread:
            room = _Room(thread)
            serving = asyncio.create_task(self._serve(room))
            try:
                yield partial(self._ask, room)
            finally:
                room.left.set()
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)

    async def _ask(self, room: _Room, messages: Sequence[Message], _promise: Promise | None = None) -> Answer:
        question = _Question(messages, asyncio.current_task(), asyncio.get_running_loop().create_future())
        room.waiting.append(question)
        room.come.set()
        try:
            answer = await question.answer
        finally:
            self.in_flight.discard(question.task)
        if isinstance(answer, Exception):
            raise answer
        self._asked += 1
        self._read += answer.tokens - answer.answer_tokens
        self._said += answer.answer_tokens
        return answer

    async def _serve(self, room: _Room) -> None:
        while await room.come.wait():
            room.waiting = [question for question in room.waiting if not question.answer.done()]
            batch = _batch(room.waiting, self.config.batch_size)
            if not batch:
                room.come.clear()
                continue
            room.waiting = [question for question in room.waiting if question not in batch]
            self.in_flight |= {question.task for question in batch}
            asked = [question.messages for question in batch]
            answers = await asyncio.get_running_loop().run_in_executor(
                room.thread, self._answers, asked, room.left.is_set
            )
            for question, answer in zip(batch, answers, strict=True):
                if not question.answer.done():
                    question.answer.set_result(answer)

    def _answers(self, asked: Sequence[Sequence[Message]], stopped: Callable[[], bool]) -> list[Answer | Exception]:
        """In the model's thread: an answer or what is raised instead, for each."""
        try:
            return self._generated(asked, stopped)
        except (RuntimeError, MemoryError) as error:  # torch tells of all that fails by the first
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            remedy = "set the judge's batch_size or max_tokens to less, or name a smaller model"
            return [WorkError(f"judge {self.name} failed ({reason}): {remedy}")] * len(asked)
        except Exception as error:
            return [error] * len(asked)

    def _generated(self, asked: Sequence[Sequence[Message]], stopped: Callable[[], bool]) -> list[Answer | Exception]:
        config, scoring = self.config, self._scoring
        prompts = [self._ids(messages) for messages in asked]
        fitting = [index for index, ids in enumerate(prompts) if len(ids) <= self._longest]
        answers: list[Answer | Exception] = [Unanswered("too long") for _ in asked]
        if not fitting:
            return answers
        draw = Draw(config.temperature, 1.0, [secrets.randbits(64) for _ in fitting]) if config.temperature else None
        watched = Watched(config.top_logprobs, draw) if config.top_logprobs else None
        started = time.monotonic()
        replies = continuations(
            scoring.model,
            scoring.tokenizer,
            [prompts[index] for index in fitting],
            config.max_tokens,
            [step for step in (watched or draw,) if step],
            stopped,
        )
        seconds = (time.monotonic() - started) / len(fitting)  # its share of the batch
        ends = stop_ids(scoring.model, scoring.tokenizer)
        for row, (index, reply) in enumerate(zip(fitting, replies, strict=True)):
            said = [token for token in reply.token_ids if token not in ends]
            # Of an empty answer the end-of-turn is kept: what else could have stood there is told by its place.
            tokens = self._tokens(watched, row, said or reply.token_ids[:1]) if watched else ()
            text = storable(scoring.tokenizer.decode(said).strip())
            cut = reply.finish is Finish.length
            answers[index] = Answer(
                text,
                refused=not (text or cut or tokens),
                cut=cut,
                model=self.model_name,
                fingerprint=scoring.key,
                tokens=len(prompts[index]) + len(reply.token_ids),
                answer_tokens=len(reply.token_ids),
                seconds=seconds,
                logprobs=tokens,
            )
        return answers

    def _tokens(self, watched: Watched, row: int, ids: Sequence[int]) -> tuple[Token, ...]:
        """An answer's tokens; none at all where a log-prob is no number."""
        tokens = []
        for token, top in zip(ids, watched.places(row, len(ids)), strict=True):
            masses: dict[str, float] = {}
            for other, log_prob in top.items():
                text = self._text(other)
                masses[text] = masses.get(text, 0.0) + math.exp(log_prob)
            tokens.append(Token(self._text(token), {text: math.log(mass) for text, mass in masses.items() if mass}))
        return tuple(tokens) if all(not math.isnan(v) for token in tokens for v in token.top.values()) else ()

    @cached_property
    def _text(self) -> Callable[[int], str]:
        """What one token id reads like."""
        raw = self._scoring.tokenizer.raw
        return cache(lambda token: str(raw.decode([token])))

    @cached_property
    def _longest(self) -> float:
        """Tokens of a question. Raises `UserError` where the answer leaves none."""
        context, limit = self._scoring.context, self.config.max_tokens
        if context is not None and limit >= context:
            raise UserError(f"{self.model_name} has a context of {context} tokens: set the judge's max_tokens to fewer")
        return math.inf if context is None else context - limit

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        """Of the whole question. Raises `UserError` where the chat template does not show the judge's instructions."""
        tokenizer = self._scoring.tokenizer
        remedy = 'use a judge template with placement = "user", or set the judge\'s chat_template'
        try:
            ids = tokenizer.prompt_ids(messages)
        except UserError as error:
            raise UserError(f"{error}; {remedy}") from error
        if messages[0].role == "system" and not self._shows_system_text:
            raise UserError(f"the chat template of {self.model_name} leaves out system messages; {remedy}")
        return ids

    @cached_property
    def _shows_system_text(self) -> bool:
        user = Message(role="user", content="?")
        shown = self._scoring.tokenizer.prompt_ids([Message(role="system", content="0probe0"), user])
        return "0probe0" in self._scoring.tokenizer.raw.decode(shown)


def _batch(waiting: Sequence[_Question], size: int) -> list[_Question]:
    """The one that waits longest, and those nearest to it in length: little of the batch is padding."""
    return sorted(waiting, key=lambda question: abs(question.length - waiting[0].length))[:size]
