"""A chat model as judge: template + endpoint + verdict parser.

Whatever keeps a comparison from being scored is said, never guessed over. What no comparison can outlive
(a wrong key, a model that is not there, an endpoint that keeps failing) ends the work with one error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence

import openai
from pydantic import Field

from dadpo_bench.errors import WorkError
from dadpo_bench.types import Comparison, JsonObject, JudgeContext, Outcome, Response, Verdict
from judges import template
from judges.endpoint import Answer, Endpoint, EndpointConfig, Unanswered
from judges.pump import iterate
from judges.verdicts import outcome

VERSION = 1
"""Raise it when a change here, in the parsers or in the filling moves verdicts."""

PATIENCE = 8
"""Comparisons in a row that may fail by the endpoint's fault, all attempts spent, before the work ends."""


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

        async def work(emit: Callable[[tuple[int, Verdict]], None]) -> None:
            await self._ask_all(comparisons, emit)

        return iterate(work)

    async def _ask_all(self, comparisons: Sequence[Comparison], emit: Callable[[tuple[int, Verdict]], None]) -> None:
        differing: list[tuple[int, Comparison]] = []
        for index, comparison in enumerate(comparisons):
            if _words(comparison.contestant) == _words(comparison.baseline):
                emit((index, Verdict(outcome=Outcome.tie, reason="identical")))
            else:
                differing.append((index, comparison))
        owed = iter(differing)  # shared by the askers: each takes the next one
        failures = 0

        async def asker(client: openai.AsyncOpenAI) -> None:
            nonlocal failures
            for index, comparison in owed:
                try:
                    verdict = await self._verdict(client, comparison)
                    failures = 0
                except Unanswered as unanswered:
                    verdict = Verdict(outcome=Outcome.unscored, reason=unanswered.reason)
                    failures = failures + 1 if unanswered.failure else 0
                emit((index, verdict))
                if failures >= PATIENCE:
                    raise WorkError(
                        f"judge endpoint {self.endpoint.host} failed {failures} comparisons in a row, "
                        f"last with '{verdict.reason}': check the server, then run the same command again"
                    )

        try:
            async with self.endpoint.client() as client, asyncio.TaskGroup() as askers:
                for _ in range(min(self.config.concurrency, len(differing))):
                    askers.create_task(asker(client))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _verdict(self, client: openai.AsyncOpenAI, comparison: Comparison) -> Verdict:
        answer = await self.endpoint.ask(client, self.template.fill(comparison))
        choice = None if answer.refused else self.template.parse(answer.text, self.template.labels)
        return Verdict(
            outcome=outcome(choice, comparison.order) if choice else Outcome.unscored,
            reason="" if choice else _why_unscored(answer),
            raw=answer.text,
            resolved_model=answer.model,
            tokens=answer.tokens,
            seconds=answer.seconds,
        )


def _words(response: Response) -> list[str]:
    return [reply.text for reply in response.replies]


def _why_unscored(answer: Answer) -> str:
    if answer.refused:
        return "refused"
    return "too long" if answer.cut else "unparsable"
