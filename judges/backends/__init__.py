"""Who answers a judge's questions: models behind endpoints, in files of requests, or in this process.

A backend is asked by `ask(messages)` and nothing else, so whatever a judge shows and however it reads the answer,
any of them may stand behind it. Registered in the entry-point group `dadpo_bench.backends`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from pydantic import Field

from dadpo_bench.types import JsonObject, Message, Value
from judges.backends.spending import Promise
from judges.verdicts import Token

P = ParamSpec("P")
A = TypeVar("A")


class BackendConfig(Value):
    """What every backend is told: which model, and how it shall answer."""

    model: str = Field(
        min_length=1,
        description="Model that is asked: its name at the endpoint (GET /models lists them), or a local directory.",
    )
    temperature: float | None = Field(
        0.0,
        ge=0,
        description="Softmax temperature; 0 is greedy. Null sends none, for models that refuse it.",
    )
    max_tokens: int = Field(
        1024, ge=1, description="Limit on the judge's answer, tokens; a model's hidden reasoning counts too."
    )
    top_logprobs: int = Field(
        0,
        ge=0,
        le=20,
        description="Likeliest tokens whose log-probs are asked for at each place of the answer, for templates that "
        "read them; 0 asks for none.",
    )

    @property
    def share(self) -> int:
        """Items that a worker elsewhere is given at a time, where workers may answer; 0 where the driver asks."""
        return 0


class Answer(NamedTuple):
    """What came back."""

    text: str
    refused: bool
    """A refusal, a content filter, or no words at all."""
    cut: bool
    """The token limit ended it."""
    model: str
    """The model that answered, as it is known to whoever served it."""
    fingerprint: str
    """Which build of it, where that is told."""
    tokens: int
    """Prompt and answer together; 0 where they are not counted."""
    answer_tokens: int
    """Of the answer alone."""
    seconds: float
    """Of the attempt that succeeded; 0 where it is not known of one question."""
    logprobs: tuple[Token, ...] = ()
    """The answer's tokens, where their log-probs were asked for and given."""
    earlier: bool = False
    """Whether an earlier run had asked for it."""
    token_ids: tuple[int, ...] = ()
    """The answer's, where they were asked for and given."""


class Unanswered(Exception):
    """One question has no answer; `reason` is what an unscored verdict says."""

    def __init__(self, reason: str, *, failure: bool = False, paid: Sequence[Answer] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.failure = failure
        """Whether it is the backend's fault and not the question's."""
        self.paid = paid
        """Answers that came all the same, and are of no use."""


Ask = Callable[[Sequence[Message], Promise | None], Awaitable[Answer]]
"""One question; `Promise` where room was given for several together.

Raises `Unanswered` where this question has no answer, `UserError` where no question will have one, `Reached` where
a limit keeps it from being asked.
"""


class Source(ABC, Generic[P, A]):
    """Whom `Asking` asks, many questions at a time."""

    askers: int
    """Questions that may wait for their answers at once."""
    role = "judge"
    """What it is here, as messages name it."""

    def __init__(self) -> None:
        self.finishing = False
        """Set by whoever wants nothing more to be asked."""
        self.in_flight: set[asyncio.Task[Any] | None] = set()
        """Tasks whose question is being answered at this moment; the others wait for their turn."""
        self.tasks: list[asyncio.Task[None]] = []
        """Everybody who asks, those who are done included."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As messages name it, e.g. with the endpoint's host."""

    @property
    @abstractmethod
    def model(self) -> str:
        """Which model is asked."""

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[Callable[P, Awaitable[A]]]:
        """Ready to be asked; entered once for each set of questions, in an event loop of its own."""


class Backend(Source[[Sequence[Message], Promise | None], Answer]):
    """Answers questions, many at a time. Construction loads nothing and raises `UserError` for what can never work."""

    config: BackendConfig
    repeatable = False
    """Whether what is asked twice must be the same to the letter, so that an answer that is there is found again."""

    def __init__(self) -> None:
        super().__init__()
        self.draw = 0
        """Raised by whoever wants new answers to questions that were asked before."""
        self.tell: Callable[[str], None] = lambda _: None
        """Where to say how far what is waited for has come, if that is long."""

    @property
    def model(self) -> str:
        """As of `Source`."""
        return self.config.model

    @abstractmethod
    def identity(self) -> JsonObject:
        """What decides an answer, beside the question and `BackendConfig`."""

    @abstractmethod
    def estimate(self, samples: Sequence[Sequence[Message]], count: int) -> str:
        """One line on what `count` questions like the samples take."""

    def usd(self, read: float, answered: float) -> float | None:
        """What so many tokens cost; None where no price is known."""
        return None

    @abstractmethod
    def bill(self) -> str:
        """One line on what has been taken."""

    def promise(self, questions: Sequence[Sequence[Message]]) -> AbstractAsyncContextManager[Promise | None]:
        """Room for all questions of one item before its first is asked; None where there are no limits."""
        return nullcontext()


def storable(text: str) -> str:
    """JSON may escape half a surrogate pair, and NUL: no database takes the one, PostgreSQL not the other."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")
