"""A chat model as judge: template + backend + verdict parser.

Whatever keeps a comparison from being scored is said, never guessed over. What no comparison can outlive
(a wrong key, a model that is not there, a server that keeps failing) ends the work with one error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field, create_model

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.types import (
    Comparison,
    JsonObject,
    JudgeContext,
    Message,
    Outcome,
    Response,
    Value,
    Verdict,
    content_key,
)
from judges.backends import Answer, Ask, Backend, Unanswered
from judges.backends.asking import Asking
from judges.backends.spending import Promise, Reached, price_at
from judges.parsers import without_thinking
from judges.sources import load
from judges.template import Unfit
from judges.verdicts import Reading, contestants, outcome

C = TypeVar("C", bound="ChatConfig")

VERSION = 3
"""Raise it when a change here, in the parsers or in the filling moves verdicts."""


AGAIN = 2
"""Times that a question is asked once more whose answer is at fault: empty, refused, unreadable, of another model."""


class ChatConfig(Value):
    """Settings of the chat judge, beside its backend's."""

    backend: str = Field("endpoint", description="Who answers; see `list judges`, and `show judges BACKEND`.")

    template: str = Field(
        "pairwise",
        description="Judge prompt: a registered template, or a file: ….toml, FastChat's judge_prompts.jsonl, an "
        "Arena-Hard ….yaml, an AlpacaEval evaluator's directory, or alpaca_eval:EVALUATOR of the installed package; "
        "of open judge models prometheus_eval:RUBRIC of the installed package, Selene's ….yaml, or a card's README.md.",
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
    answered_by: str = Field(
        "",
        description="Model name that answers must carry, e.g. gpt-4o-2024-08-06; those of another are asked again, "
        "then unscored. Empty: any, and a change is reported.",
    )


def config(values: JsonObject) -> type[ChatConfig]:
    """The settings of the judge `chat` on the backend that `values` name: its own and the backend's in one."""
    return configured(ChatConfig, values)


def configured(own: type[C], values: JsonObject) -> type[C]:
    """A judge's own settings and its backend's, as one class. Raises `UserError` for an unknown backend."""
    entry = registry.backends[str(values.get("backend", own.model_fields["backend"].default))]
    return create_model(own.__name__, __base__=(own, registry.resolve(entry.config)), __doc__=own.__doc__)


Item = TypeVar("Item", Comparison, Response)
Judgment = TypeVar("Judgment")

MISSING, ANOTHER, UNPARSABLE = "missing log-prob", "another model answered", "unparsable"
_AT_FAULT = ("refused", MISSING, ANOTHER, UNPARSABLE)
"""Reasons of answers that may be better the next time; the others would be the same."""


class ChatJudge(ABC, Generic[Item, Judgment]):
    """What judges share that ask a chat model: template, backend, and the questions in flight.

    Temperature, token limit and log-probs are the template's where it names any and the settings do not.

    Raises `UserError` at once where the key is missing or the URL, the template or a setting of it is wrong.
    """

    name: str
    kind: Literal["pairwise", "pointwise"]

    def __init__(self, config: Any, _context: JudgeContext, *, key: bool = True) -> None:
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
        self.backend: Backend = registry.backends.load(config.backend)(self.config, key=key)
        self._asking = Asking(self.backend)

    def __getstate__(self) -> dict[str, Any]:
        """For another process: no event loop."""
        return {name: value for name, value in vars(self).items() if name != "_asking"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._asking = Asking(self.backend)

    @property
    def share(self) -> int:
        """As of its config."""
        return int(self.config.share)

    def identity(self) -> JsonObject:
        """What decides a verdict. Retries, time-outs, concurrency, port and key do not."""
        identity = {
            "judge": self.name,
            "version": VERSION,
            "model": self.config.model,
            **self.backend.identity(),
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
        if self.config.answered_by:
            identity["answered_by"] = self.config.answered_by
        return identity

    @abstractmethod
    async def asked(self, ask: Ask, item: Item) -> Judgment:
        """What the model says. Raises as `Ask` does."""

    @abstractmethod
    def unscored(self, why: Unanswered) -> Judgment:
        """What stands for no answer."""

    def fill(self, item: Comparison | Response, attempt: int = 0) -> list[Message]:
        """The question. Raises `Unanswered` where the template cannot show the prompt.

        Where it must be repeatable, the fence's marks are no random ones but a hash of all that is shown and of the
        attempt. Anybody can compute it, and it is safe all the same: to close its fence, a response would have to
        hold the hash of a text that it is part of. Whatever it changes in itself changes the marks, and 128 bits are
        too many to try.
        """
        try:
            nonce = ""
            if self.backend.repeatable:
                nonce = content_key("fence", self.template.fill(item, "-", turns=self.turns), attempt)
            return self.template.fill(item, nonce, turns=self.turns)
        except Unfit as unfit:
            raise Unanswered(str(unfit)) from None

    @abstractmethod
    def parts(self, item: Item) -> Iterator[Item]:
        """What an item is asked about, a question each."""

    def questions(self, item: Item) -> list[list[Message]]:
        """What an item is asked. Raises as `fill` does."""
        return [self.fill(part) for part in self.parts(item)]

    async def reading(self, ask: Ask, part: Item, promise: Promise | None = None) -> tuple[Reading, list[Answer]]:
        """What the model says of a part, and its answers: asked anew where one is at fault, `AGAIN` times a run.

        Raises as `Ask` and `fill` do, and `Unanswered` where all answers lack the log-probs that are to be read:
        that is likely the same for all questions, and ends the work before everything is paid in vain.
        """
        answers: list[Answer] = []
        reading = Reading(None)
        while sum(not answer.earlier for answer in answers) <= AGAIN and not (answers and self.backend.finishing):
            try:
                answers.append(await ask(self.fill(part, len(answers)), promise))  # the fence's marks are new ones
            except (Reached, Unanswered):
                if not answers:
                    raise
                break  # what is paid for is kept
            reading = self.read(answers[-1])
            if reading.value is not None or reading.reason not in _AT_FAULT:
                break
        if reading.reason == MISSING:
            raise Unanswered(MISSING, failure=True, paid=answers)
        return reading, answers

    def read(self, answer: Answer) -> Reading:
        """What the answer says; nothing where it is at fault."""
        wanted = self.config.answered_by
        if wanted and answer.model != wanted:
            return Reading(None, ANOTHER)
        if answer.refused:
            return Reading(None, "refused")
        if self.template.reads_logprobs and not answer.logprobs:
            return Reading(None, MISSING)
        if answer.cut and self.template.fenced and not self.template.reads_logprobs:
            # Our templates put the verdict last: a label in what was cut is one that it weighed, or quoted.
            return Reading(None, "too long")
        reading = self.template.parse(without_thinking(answer.text), answer.logprobs, self.template.offered)
        if reading.value is None and not reading.reason:
            return reading._replace(reason="too long" if answer.cut else UNPARSABLE)
        return reading

    def answers(self, items: Sequence[Item]) -> Generator[tuple[int, Judgment], None, None]:
        """Yield (index, judgment) as answers arrive; a consumer that stops early cancels the open requests."""
        return self._asking.all(items, self.asked, self.unscored)

    def tell(self, hear: Callable[[str], None]) -> None:
        """How far what is waited for has come is told to `hear` from now on."""
        self.backend.tell = hear

    def finish(self) -> None:
        """Ask nothing more; what is in flight is still answered and yielded. Any thread may call it."""
        self._asking.finish()

    def anew(self) -> None:
        """From here on, no answer that is there already counts."""
        self.backend.draw += 1

    def estimate(self, items: Sequence[Item], count: int = 0) -> str:
        """What asking `count` like these will cost (all of them by default), in one line."""
        few = items[:: max(1, len(items) // 100)]
        samples = [question for item in few for question in self._fitting(item)]
        calls = round((count or len(items)) * len(samples) / max(1, len(few)))
        return self.backend.estimate(samples, calls)

    def _fitting(self, item: Item) -> list[list[Message]]:
        """Its questions; none of an item that the template cannot show, which costs nothing."""
        with suppress(Unanswered):
            return self.questions(item)
        return []

    def usd(self, read: float, answered: float) -> float | None:
        """What so many tokens cost; None where no price is known."""
        return self.backend.usd(read, answered)

    @classmethod
    def usd_of(cls, identity: JsonObject, read: float, answered: float) -> float | None:
        """What so many tokens cost of a judge with this identity, not by batches; None where no price is known."""
        price = price_at(str(identity.get("host", "")), str(identity.get("model", "")))
        return price.usd(read, answered) if price else None

    def bill(self) -> str:
        """What it has cost, in one line."""
        return self.backend.bill()

    @classmethod
    def unfit(cls, config: Any, context: JudgeContext, items: Sequence[Item]) -> list[str]:
        """Of each item why it would not be asked about, empty where it would; needs no key."""
        judge = cls(config, context, key=False)

        def reason(item: Item) -> str:
            try:
                judge.questions(item)
            except Unanswered as unanswered:
                return unanswered.reason
            return ""

        return [reason(item) for item in items]

    @classmethod
    def preview(cls, config: Any, context: JudgeContext, items: Sequence[Item], count: int) -> tuple[list[str], str]:
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
        `another model answered`, `too long`, `api error: CLASS [STATUS]`; `missing log-prob` or `label mass M
        under THRESHOLD` where log-probs are read, whose scored verdicts say `label mass M`; or what the prompt
        lacks for the template.

        Raises `UserError` where the endpoint answers 401, 403, 404 or an exhausted quota, and `WorkError`
        after `PATIENCE` failures in a row; verdicts yielded before stand.
        """
        return self.answers(comparisons)

    def parts(self, comparison: Comparison) -> Iterator[Comparison]:
        """The whole."""
        yield comparison

    def unscored(self, why: Unanswered) -> Verdict:
        """No verdict, and why."""
        return Verdict(outcome=Outcome.unscored, reason=why.reason, **kept(why.paid[-1:], why.paid))

    async def asked(self, ask: Ask, comparison: Comparison) -> Verdict:
        """One question, and none where both say the same."""
        if _words(comparison.contestant) == _words(comparison.baseline):
            return Verdict(outcome=Outcome.tie, reason="identical")
        reading, answers = await self.reading(ask, comparison)
        if reading.value is None:
            return Verdict(outcome=Outcome.unscored, reason=reading.reason, **kept(answers[-1:], answers))
        preference = contestants(reading.value, comparison.order)
        return Verdict(
            outcome=outcome(preference),
            preference=preference if self.template.graded else None,
            reason="" if reading.mass is None else f"label mass {reading.mass:.4f}",
            **kept(answers[-1:], answers),
        )


def kept(read: Sequence[Answer], paid: Sequence[Answer]) -> dict[str, Any]:
    """What is kept behind one judgment: the words of the answers that were read, what all of them took."""
    if not read:
        return {}
    return {
        "raw": "\n\n".join(answer.text for answer in read),
        "resolved_model": read[-1].model,
        "fingerprint": read[-1].fingerprint,
        "tokens": sum(answer.tokens for answer in paid),
        "answer_tokens": sum(answer.answer_tokens for answer in paid),
        "seconds": sum(answer.seconds for answer in paid),
    }


def _words(response: Response) -> list[str]:
    return [reply.text for reply in response.replies]
