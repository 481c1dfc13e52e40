"""A chat model as a pointwise judge: every turn of a response is rated on a scale, in a question of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from statistics import fmean

from pydantic import Field

from dadpo_bench.types import JsonObject, Rating, Reply, Response
from judges.backends import Answer, Ask, Unanswered
from judges.backends.spending import Reached
from judges.chat import ChatConfig, ChatJudge, configured, kept


class ChatScoreConfig(ChatConfig):
    """Settings of the judge `chat-score`, beside its backend's."""

    template: str = Field(
        "score",
        description="Judge prompt: a registered template, or a file: ….toml, FastChat's judge_prompts.jsonl, or "
        "Selene's ….yaml; or prometheus_eval:RUBRIC of the installed package.",
    )


def config(values: JsonObject) -> type[ChatScoreConfig]:
    """The settings of the judge `chat-score` on the backend that `values` name."""
    return configured(ChatScoreConfig, values)


class ChatScore(ChatJudge[Response, Rating]):
    """Asks a chat model to rate one response; of a conversation every turn, with what came before it."""

    name = "chat-score"
    kind = "pointwise"

    def rate(self, responses: Sequence[Response]) -> Generator[tuple[int, Rating], None, None]:
        """Yield ratings as answers arrive; unit: the template's scale. A rating is the mean over the turns.

        A response of which one turn cannot be rated has no rating. Reasons and errors are those of `Chat.judge`.
        """
        return self.answers(responses)

    def parts(self, response: Response) -> Iterator[Response]:
        """The conversation up to each turn that counts."""
        whole = len(response.replies)
        for turn in [whole] if self.turns == "last" else range(1, whole + 1):
            yield _upto(response, turn)

    def unscored(self, why: Unanswered) -> Rating:
        """No rating, and why."""
        return Rating(value=None, reason=why.reason, **kept(why.paid, why.paid))

    async def asked(self, ask: Ask, response: Response) -> Rating:
        """The questions of one response, one after another."""
        values: list[float] = []
        read: list[Answer] = []
        paid: list[Answer] = []
        reason = ""
        async with self.backend.promise(self.questions(response)) as promise:
            for part in self.parts(response):
                try:
                    reading, answers = await self.reading(ask, part, promise)
                except Unanswered as why:
                    raise Unanswered(why.reason, failure=why.failure, paid=(*paid, *why.paid)) from None
                except Reached as limit:
                    if not paid:
                        raise
                    reason = str(limit)  # what is paid for is kept
                    break
                read.append(answers[-1])
                paid += answers
                if reading.value is None:
                    reason = reading.reason
                    break
                values.append(reading.value)
        return Rating(
            value=None if reason else fmean(values),
            by_turn=() if reason or self.turns == "last" else tuple(values),
            reason=reason,
            **kept(read, paid),
        )


def _upto(response: Response, turn: int) -> Response:
    """The conversation as it stood after that turn."""
    prompt = response.prompt
    shortened = prompt.model_copy(update={"turns": prompt.turns[:turn], "reference": prompt.reference[:turn]})
    replies: tuple[Reply, ...] = response.replies[:turn]
    return Response(prompt=shortened, replies=replies)
