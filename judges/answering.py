"""A chat model behind an endpoint as a contestant: it answers prompts, a conversation turn by turn.

How it is asked (retries, places, keys, limits) is the judges' endpoint's; what is sent, and what is made of an answer,
is its own.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextvars import ContextVar

from pydantic import Field, ValidationError

from dadpo_bench.errors import UserError
from dadpo_bench.recipe import explain
from dadpo_bench.types import Finish, JsonObject, Message, Prompt, Reply, Response
from judges.backends import Ask, Unanswered
from judges.backends.asking import Asking
from judges.backends.endpoint import Endpoint, EndpointConfig
from judges.backends.spending import CHARACTERS

VERSION = 1
"""Part of every response's key: raise it when a change here moves what is sent or kept."""


class AnsweringConfig(EndpointConfig):
    """Which model answers, where and how. A prompt's own temperature comes with it, unless this one's is null."""

    top_p: float = Field(
        1.0, gt=0, le=1, description="Nucleus sampling: share of probability mass kept. 1 is not sent."
    )
    seed: int | None = Field(None, description="Sent where tokens are drawn; servers may ignore it. Null sends none.")
    token_ids: bool = Field(
        False, description="Ask for the sampled token ids too (vLLM's return_token_ids); others leave them out."
    )


_temperature: ContextVar[float] = ContextVar("temperature")
"""Of the prompt at hand. Each asker is a task with a context of its own; all share one pool, one bill, its limits."""


class _Endpoint(Endpoint):
    role = "model"
    option = "--model-set '{}'"
    otherwise = "name another variable by --api-key-env"
    config: AnsweringConfig

    def sampling(self) -> JsonObject:
        sent: dict[str, object] = {"return_token_ids": True} if self.config.token_ids else {}
        if self.config.temperature is None:
            return sent
        sent["temperature"] = _temperature.get()
        if _temperature.get():
            sent |= {"top_p": self.config.top_p} if self.config.top_p < 1 else {}
            sent |= {"seed": self.config.seed} if self.config.seed is not None else {}
        return sent


class _Teacher(_Endpoint):
    role = "teacher"
    option = "--set 'teacher.{}'"
    otherwise = "name the variable that holds it by teacher.api_key_env"
    address = "teacher.endpoint"
    key_setting = "teacher.api_key_env"


class Answering:
    """See `dadpo_bench.types.Answerer`."""

    def __init__(self, settings: JsonObject, *, key: bool = True, teacher: bool = False) -> None:
        where, kind = ("teacher", _Teacher) if teacher else ("--model-set", _Endpoint)
        try:
            config = AnsweringConfig.model_validate(dict(settings))
        except ValidationError as error:
            raise UserError(explain(error, where, list(AnsweringConfig.model_fields))) from error
        self._backend = kind(config, key=key)
        self._asking = Asking(self._backend)

    def identity(self) -> JsonObject:
        """Host and model name, which is all that can be known of a model elsewhere, and what is asked of it."""
        config = self._backend.config
        unsent = {"temperature": None} if config.temperature is None else {}
        return {
            "version": VERSION,
            **self._backend.identity(),
            **config.model_dump(include={"model", "max_tokens", "top_p", "seed"}),
            **unsent,
        }

    def answers(
        self, prompts: Sequence[Prompt], temperatures: Sequence[float]
    ) -> Generator[tuple[int, Response | str], None, None]:
        """As `Answerer.answers`; reasons are those of `Ask`."""

        async def answered(ask: Ask, question: tuple[Prompt, float]) -> Response | str:
            prompt, temperature = question
            _temperature.set(temperature)
            replies: list[Reply] = []
            seconds = 0.0
            async with self._backend.promise(self._questions(prompt)) as promise:
                for _ in prompt.turns:
                    answer = await ask(prompt.messages(tuple(reply.text for reply in replies)), promise)
                    if answer.refused:
                        raise Unanswered("refused")
                    seconds += answer.seconds
                    finish = Finish.length if answer.cut else Finish.stop
                    replies.append(Reply(text=answer.text, token_ids=answer.token_ids, finish=finish))
            return Response(prompt=prompt, replies=tuple(replies), seconds=seconds or None)

        def unanswered(why: Unanswered) -> Response | str:
            return why.reason

        return self._asking.all(list(zip(prompts, temperatures, strict=True)), answered, unanswered)

    def _questions(self, prompt: Prompt) -> list[list[Message]]:
        """What each turn will show, its earlier replies taken to be as long as allowed."""
        reply = "." * int(CHARACTERS * self._backend.config.max_tokens)
        return [prompt.messages((reply,) * turn) for turn in range(len(prompt.turns))]

    def finish(self) -> None:
        """Ask nothing more; what is in flight is still yielded."""
        self._asking.finish()

    def estimate(self, prompts: Sequence[Prompt]) -> str:
        """Calls, tokens and USD."""
        questions = [question for prompt in prompts for question in self._questions(prompt)]
        return self._backend.estimate(questions, len(questions))

    def bill(self) -> str:
        """Calls, tokens and USD."""
        return self._backend.bill()
