"""A chat model as judge: template + endpoint + verdict parser.

Whatever keeps a comparison from being scored is said, never guessed over. What no comparison can outlive
(a wrong key, a model that is not there, an endpoint that keeps failing) ends the work with one error.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import openai
from pydantic import Field

from dadpo_bench.types import Comparison, JsonObject, JudgeContext, Outcome, Response, Verdict
from judges import template
from judges.asking import Asking
from judges.endpoint import Answer, Endpoint, EndpointConfig
from judges.verdicts import outcome

VERSION = 1
"""Raise it when a change here, in the parsers or in the filling moves verdicts."""


class ChatConfig(EndpointConfig):
    """Settings of the chat judge."""

    template: str = Field(
        "pairwise", description="Judge prompt: a name in judges/templates, or a path that ends in .toml."
    )


class Chat:
    """Asks a chat model which of two responses is better, in the order of each comparison.

    Raises `UserError` at once where the key is missing or the URL or template is wrong.
    """

    def __init__(self, config: ChatConfig, _context: JudgeContext) -> None:
        self.config = config
        self.template = template.load(config.template)
        self.endpoint = Endpoint(config)
        self._asking = Asking(self.endpoint)

    def identity(self) -> JsonObject:
        """What decides a verdict. Retries, time-outs, concurrency, port and key do not."""
        return {
            "judge": "chat",
            "version": VERSION,
            "model": self.config.model,
            "host": self.endpoint.host,
            "template": self.template.sha256,
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_tokens,
        }

    def judge(self, comparisons: Sequence[Comparison]) -> Generator[tuple[int, Verdict], None, None]:
        """Yield verdicts as answers arrive; a consumer that stops early cancels the open requests.

        Identical responses tie without a question. Unscored verdicts carry as reason `unparsable`,
        `refused`, `too long` or `api error: CLASS [STATUS]`.

        Raises `UserError` where the endpoint answers 401, 403, 404 or an exhausted quota, and `WorkError`
        after `PATIENCE` failures in a row; verdicts yielded before stand.
        """

        return self._asking.all(comparisons, self._verdict, _unscored)

    def finish(self) -> None:
        """Ask nothing more; what is in flight is still answered and yielded. Any thread may call it."""
        self._asking.finish()

    def estimate(self, comparisons: Sequence[Comparison]) -> str:
        """What it will cost, in one line."""
        few = comparisons[:: max(1, len(comparisons) // 100)]
        return self.endpoint.meter.estimate([self.template.fill(one) for one in few], len(comparisons))

    def bill(self) -> str:
        """What it has cost, in one line."""
        return self.endpoint.meter.bill()

    @staticmethod
    def preview(config: ChatConfig, comparisons: Sequence[Comparison], count: int) -> tuple[list[str], str]:
        """The prompts of some comparisons as they would be sent, and what `count` like them cost; needs no key."""
        filled = [template.load(config.template).fill(one) for one in comparisons]
        shown = ["\n\n".join(f"[{m.role}]\n{m.content}" for m in messages) for messages in filled]
        return shown, Endpoint(config, key=False).meter.estimate(filled, count)

    async def _verdict(self, client: openai.AsyncOpenAI, comparison: Comparison) -> Verdict:
        if _words(comparison.contestant) == _words(comparison.baseline):
            return Verdict(outcome=Outcome.tie, reason="identical")
        answer = await self.endpoint.ask(client, self.template.fill(comparison))
        choice = None if answer.refused else self.template.parse(answer.text, self.template.labels)
        return Verdict(
            outcome=outcome(choice, comparison.order) if choice else Outcome.unscored,
            reason="" if choice else _why_unscored(answer),
            raw=answer.text,
            resolved_model=answer.model,
            fingerprint=answer.fingerprint,
            tokens=answer.tokens,
            answer_tokens=answer.answer_tokens,
            seconds=answer.seconds,
        )


def _unscored(reason: str) -> Verdict:
    return Verdict(outcome=Outcome.unscored, reason=reason)


def _words(response: Response) -> list[str]:
    return [reply.text for reply in response.replies]


def _why_unscored(answer: Answer) -> str:
    if answer.refused:
        return "refused"
    return "too long" if answer.cut else "unparsable"
