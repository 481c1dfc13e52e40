"""A chat model as judge: template + endpoint + verdict parser.

Whatever keeps a comparison from being scored is said, never guessed over. What no comparison can outlive
(a wrong key, a model that is not there, an endpoint that keeps failing) ends the work with one error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any, Generic, Literal, TypeVar

import openai
from pydantic import Field

from dadpo_bench.errors import UserError
from dadpo_bench.types import Comparison, JsonObject, JudgeContext, Message, Outcome, Response, Verdict
from judges.asking import Asking
from judges.endpoint import Answer, Endpoint, EndpointConfig, Unanswered
from judges.parsers import without_thinking
from judges.sources import load
from judges.template import Unfit
from judges.verdicts import Reading, contestants, outcome

VERSION = 2
"""Raise it when a change here, in the parsers or in the filling moves verdicts."""


class ChatConfig(EndpointConfig):
    """Settings of the chat judge. Temperature, token limit and log-probs are the template's where it names any."""

    template: str = Field(
        "pairwise",
        description="Judge prompt: a registered template, or a file: ….toml, FastChat's judge_prompts.jsonl, an "
        "Arena-Hard ….yaml, an AlpacaEval evaluator's directory, or alpaca_eval:EVALUATOR of the installed package.",
    )
    turns: Literal["all", "last"] | None = Field(
        None, description="Turns of a conversation that count: all, or the last alone. Null: as the template says."
    )
    label_mass: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Probability that both label tokens must have together, for templates that read log-probs; "
        "under it a comparison stays unscored. Null: as the template says, 0.5 for most.",
    )


Item = TypeVar("Item", Comparison, Response)
Judgment = TypeVar("Judgment")


class ChatJudge(ABC, Generic[Item, Judgment]):
    """What judges share that ask a chat model: template, endpoint, and the questions in flight.

    Raises `UserError` at once where the key is missing or the URL, the template or a setting of it is wrong.
    """

    name: str
    kind: Literal["pairwise", "pointwise"]

    def __init__(self, config: ChatConfig, _context: JudgeContext, *, key: bool = True) -> None:
        template = load(config.template, self.kind)
        if config.turns and config.turns not in template.turns:
            raise UserError(
                f"judge template {config.template} knows no turns={config.turns}: "
                f"leave it out, or set {template.turns[0]}"
            )
        if config.label_mass is not None:
            template = template.model_copy(update={"label_mass": config.label_mass})
        own = template.sampling.model_dump(exclude_none=True)
        self.template = template
        self.turns = config.turns or template.turns[0]
        self.config = config.model_copy(update={k: v for k, v in own.items() if k not in config.model_fields_set})
        if template.reads_logprobs and not self.config.top_logprobs:
            raise UserError(f"judge template {config.template} reads log-probs: set top_logprobs to 1 to 20")
        self.endpoint = Endpoint(self.config, key=key)
        self._asking = Asking(self.endpoint)

    def identity(self) -> JsonObject:
        """What decides a verdict. Retries, time-outs, concurrency, port and key do not."""
        identity = {
            "judge": self.name,
            "version": VERSION,
            "model": self.config.model,
            "host": self.endpoint.host,
            "template": self.template.sha256,
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_tokens,
        }
        if self.turns != self.template.turns[0]:
            identity["turns"] = self.turns
        if not self.template.fenced:
            identity["fenced"] = False
        if self.template.reads_logprobs:
            identity |= {"top_logprobs": self.config.top_logprobs, "label_mass": self.template.label_mass}
        return identity

    @abstractmethod
    async def asked(self, client: openai.AsyncOpenAI, item: Item) -> Judgment:
        """What the model says. Raises as `Endpoint.ask` does."""

    @abstractmethod
    def unscored(self, reason: str) -> Judgment:
        """What stands for no answer."""

    def fill(self, item: Comparison | Response) -> list[Message]:
        """The question. Raises `Unanswered` where the template cannot show the prompt."""
        try:
            return self.template.fill(item, turns=self.turns)
        except Unfit as unfit:
            raise Unanswered(str(unfit)) from None

    @abstractmethod
    def questions(self, item: Item) -> Iterator[list[Message]]:
        """What an item is asked, question by question. Raises as `fill` does."""

    def read(self, answer: Answer) -> Reading:
        """What the answer says; nothing where the model refused. Raises `Unanswered` where log-probs are missing."""
        if answer.refused:
            return Reading(None, "refused")
        if self.template.reads_logprobs and not answer.logprobs:
            # The endpoint's fault, and likely the same for all: it ends the work before everything is paid in vain.
            raise Unanswered("missing log-prob", failure=True)
        if answer.cut and self.template.fenced and not self.template.reads_logprobs:
            # Our templates put the verdict last: a label in what was cut is one that it weighed, or quoted.
            return Reading(None, "too long")
        return self.template.parse(without_thinking(answer.text), answer.logprobs, self.template.offered)

    def answers(self, items: Sequence[Item]) -> Generator[tuple[int, Judgment], None, None]:
        """Yield (index, judgment) as answers arrive; a consumer that stops early cancels the open requests."""
        return self._asking.all(items, self.asked, self.unscored)

    def finish(self) -> None:
        """Ask nothing more; what is in flight is still answered and yielded. Any thread may call it."""
        self._asking.finish()

    def estimate(self, items: Sequence[Item], count: int = 0) -> str:
        """What asking `count` like these will cost (all of them by default), in one line."""
        few = items[:: max(1, len(items) // 100)]
        samples = [question for item in few for question in self._fitting(item)]
        calls = round((count or len(items)) * len(samples) / max(1, len(few)))
        return self.endpoint.meter.estimate(samples, calls)

    def _fitting(self, item: Item) -> list[list[Message]]:
        """Its questions; none of an item that the template cannot show, which costs nothing."""
        with suppress(Unanswered):
            return list(self.questions(item))
        return []

    def bill(self) -> str:
        """What it has cost, in one line."""
        return self.endpoint.meter.bill()

    @classmethod
    def preview(
        cls, config: ChatConfig, context: JudgeContext, items: Sequence[Item], count: int
    ) -> tuple[list[str], str]:
        """Questions about the items as they would be sent, and what `count` like these cost; needs no key."""
        judge = cls(config, context, key=False)
        filled = [question for item in items for question in judge._fitting(item)]
        shown = ["\n\n".join(f"[{m.role}]\n{m.content}" for m in messages) for messages in filled]
        return shown, judge.estimate(items, count)


class Chat(ChatJudge[Comparison, Verdict]):
    """Asks a chat model which of two responses is better, in the order of each comparison."""

    name = "chat"
    kind = "pairwise"

    def judge(self, comparisons: Sequence[Comparison]) -> Generator[tuple[int, Verdict], None, None]:
        """Yield verdicts as answers arrive; a consumer that stops early cancels the open requests.

        Identical responses tie without a question. Unscored verdicts carry as reason `unparsable`, `refused`,
        `too long`, `api error: CLASS [STATUS]`; `missing log-prob` or `label mass M under THRESHOLD` where
        log-probs are read, whose scored verdicts say `label mass M`; or what the prompt lacks for the template.

        Raises `UserError` where the endpoint answers 401, 403, 404 or an exhausted quota, and `WorkError`
        after `PATIENCE` failures in a row; verdicts yielded before stand.
        """
        return self.answers(comparisons)

    def questions(self, comparison: Comparison) -> Iterator[list[Message]]:
        """One."""
        yield self.fill(comparison)

    def unscored(self, reason: str) -> Verdict:
        """No verdict, and why."""
        return Verdict(outcome=Outcome.unscored, reason=reason)

    async def asked(self, client: openai.AsyncOpenAI, comparison: Comparison) -> Verdict:
        """One question, and none where both say the same."""
        if _words(comparison.contestant) == _words(comparison.baseline):
            return Verdict(outcome=Outcome.tie, reason="identical")
        (question,) = self.questions(comparison)
        answer = await self.endpoint.ask(client, question)
        reading = self.read(answer)
        if reading.value is None:
            verdict, reason = Outcome.unscored, why_unscored(answer, reading)
            preference = None
        else:
            preference = contestants(reading.value, comparison.order)
            verdict, reason = outcome(preference), "" if reading.mass is None else f"label mass {reading.mass:.4f}"
        return Verdict(
            outcome=verdict,
            preference=preference if self.template.graded else None,
            reason=reason,
            **kept([answer]),
        )


def kept(answers: Sequence[Answer]) -> dict[str, Any]:
    """What is kept of the answers behind one judgment: the fields of `Asked`, but for the reason."""
    return {
        "raw": "\n\n".join(answer.text for answer in answers),
        "resolved_model": answers[-1].model,
        "fingerprint": answers[-1].fingerprint,
        "tokens": sum(answer.tokens for answer in answers),
        "answer_tokens": sum(answer.answer_tokens for answer in answers),
        "seconds": sum(answer.seconds for answer in answers),
    }


def _words(response: Response) -> list[str]:
    return [reply.text for reply in response.replies]


def why_unscored(answer: Answer, reading: Reading) -> str:
    """The reason that an unscored judgment carries."""
    return reading.reason or ("too long" if answer.cut else "unparsable")
