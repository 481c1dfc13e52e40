"""Judges that need no key: what a local scoring model's token log-probs say of a response. Proxies, both.

`pmi` asks how much more likely the prompt makes what the response adds; `gptscore`, kept as the cautionary
example, how likely the response is. Either rating is a weighted sum of token log-probs, so a judge here is
nothing but the `Term`s it lists for a response.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from dadpo_bench.errors import UserError
from dadpo_bench.models.loading import find
from dadpo_bench.models.logprobs import SCORER_VERSION, token_scores
from dadpo_bench.models.precision import frozen
from dadpo_bench.models.stream import Branching
from dadpo_bench.types import JsonObject, JudgeContext, Message, Rating, Response, Value
from judges.scoring_model import ScoringModel

VERSION = 1
"""Raise it when a change here moves ratings."""


class LikelihoodConfig(Value):
    """Settings of a likelihood judge; those of `gptscore`."""

    share: ClassVar = 8
    """Responses that a worker elsewhere is given at a time."""

    model: str = Field(
        "",
        description="Scoring model: a directory, a Hugging Face id or the embedded model's name, with its "
        "own chat template. Empty: the recipe's teacher with the recipe's template.",
    )
    max_tokens: int = Field(
        1024,
        ge=1,
        description="Tokens. Of a conversation the last so many are shown to the model; of a reply the first "
        "so many are scored, the rest ignored.",
    )


class PmiConfig(LikelihoodConfig):
    """Settings of `pmi`."""

    neutral_prompt: str = Field(
        "Say something.",
        min_length=1,
        description="User message in place of the conversation in the second term. Wording ours; the idea "
        "is the domain premise of Holtzman et al. 2021 (arXiv 2104.08315).",
    )


Ids = tuple[int, ...]


class Term(NamedTuple):
    """Weighted log-probs of one reply's tokens: Σ_t weights[t] · log p(reply[t] | prompt, reply[:t])."""

    prompt: Ids
    reply: Ids
    weights: tuple[float, ...]


class _Likelihood(ABC):
    """What the two judges share: the scoring model, the batches and the sum."""

    name: str
    share = LikelihoodConfig.share

    def __init__(self, config: LikelihoodConfig, context: JudgeContext) -> None:
        self._config = config
        self._scoring = (
            ScoringModel(partial(find, config.model))
            if config.model
            else ScoringModel(context.teacher, context.teacher_chat_template)
        )

    def identity(self) -> JsonObject:
        """What decides a rating. Raises `UserError` where the scoring model cannot be found."""
        return {
            "judge": self.name,
            "version": f"{VERSION}.{SCORER_VERSION}",
            **self._scoring.identity(),
            **self._config.model_dump(exclude={"model"}),
        }

    def rate(self, responses: Sequence[Response]) -> Iterator[tuple[int, Rating]]:
        """Yield ratings in nats a token, one response after another.

        A rating is a function of its response alone: log-probs shift with the shape of a batch (seen: by up
        to 0.04 in bf16), so responses never share one, and a resumed run rates as an uninterrupted one.
        A rating is None where no token can be scored or a log-prob is not finite.
        Raises `UserError` where the scoring model is missing, has no chat template, or a shorter context.
        """
        for index, response in enumerate(responses):
            yield index, self._rating(response)

    @abstractmethod
    def terms(self, response: Response) -> list[Term]:
        """What the rating is the sum of; empty where no token counts."""

    @abstractmethod
    def without_terms(self, response: Response) -> Rating:
        """The rating of a response of which no token counts."""

    @property
    def _model(self) -> Any:
        scoring = self._scoring
        if scoring.context is not None and 2 * self._config.max_tokens > scoring.context:
            raise UserError(
                f"judge {self.name}: {scoring.directory.name} has a context of {scoring.context} tokens; "
                f"set max_tokens to at most {scoring.context // 2}"
            )
        return scoring.model

    def prompt_ids(self, messages: Sequence[Message]) -> Ids:
        """The last `max_tokens` ids of a rendered conversation."""
        return tuple(self._scoring.tokenizer.prompt_ids(messages)[-self._config.max_tokens :])

    def text_ids(self, text: str) -> list[int]:
        """Ids of plain text: control tokens in it broken, no end-of-turn."""
        tokenizer = self._scoring.tokenizer
        return list(tokenizer.raw.encode(tokenizer.neutralise(text), add_special_tokens=False))

    def turns(self, response: Response) -> Iterator[tuple[list[Message], Ids]]:
        """Each reply that is not empty: the conversation before it, and its first `max_tokens` ids."""
        texts = tuple(reply.text for reply in response.replies)
        for turn, text in enumerate(texts):
            if ids := self.text_ids(text)[: self._config.max_tokens]:
                yield response.prompt.messages(texts[:turn]), tuple(ids)

    def _rating(self, response: Response) -> Rating:
        terms = self.terms(response)
        if not terms:
            return self.without_terms(response)
        branchings = [Branching(term.prompt, [term.reply]) for term in terms]
        scores = token_scores(self._model, branchings, frozen())
        value = math.fsum(
            weight * score
            for term, (row,) in zip(terms, scores, strict=True)
            for weight, score in zip(term.weights, row, strict=True)
        )
        return Rating(value=value) if math.isfinite(value) else Rating(value=None, reason="missing log-prob")


class Pmi(_Likelihood):
    """Mean over the novel tokens t of log p(t | x, y<t) − log p(t | x₀, y<t), nats a token.

    x is the conversation before the reply, x₀ the neutral prompt alone, both by the chat template. Novel:
    ids that occur in no user or assistant message before the reply (as plain text; template and system
    text excluded). End-of-turn is not counted. Replies of several turns are one mean over all their novel
    tokens. A response with no novel token (empty, or an echo) rates 0.

    Mutual information as an objective: Li et al. 2016; domain-conditional PMI: Holtzman et al. 2021.
    """

    name = "pmi"

    def __init__(self, config: PmiConfig, context: JudgeContext) -> None:
        super().__init__(config, context)
        self._neutral = [Message(role="user", content=config.neutral_prompt)]

    def terms(self, response: Response) -> list[Term]:
        """Two a reply with novel tokens: + under its conversation, − under the neutral prompt."""
        found: list[tuple[list[Message], Ids, list[bool]]] = []
        for history, reply in self.turns(response):
            before = {i for m in history if m.role != "system" for i in self.text_ids(m.content)}
            novel = [token not in before for token in reply]
            if any(novel):
                found.append((history, reply, novel))
        count = sum(sum(novel) for _, _, novel in found)
        terms = []
        for history, reply, novel in found:
            weights = tuple(isnew / count for isnew in novel)
            terms.append(Term(self.prompt_ids(history), reply, weights))
            terms.append(Term(self.prompt_ids(self._neutral), reply, tuple(-weight for weight in weights)))
        return terms

    def without_terms(self, _response: Response) -> Rating:
        """What adds nothing is worth nothing."""
        return Rating(value=0.0)


class GptScore(_Likelihood):
    """Mean over all tokens of log p(t | x, y<t), nats a token, end-of-turn not counted.

    It loves repetition: a loop is the likeliest text there is. Never rank by it; it is here to show why.
    An empty response has no mean and stays unscored: 0 would be the best rating of all.

    Fu et al. 2023.
    """

    name = "gptscore"

    def terms(self, response: Response) -> list[Term]:
        """One a reply."""
        turns = list(self.turns(response))
        count = sum(len(reply) for _, reply in turns)
        return [Term(self.prompt_ids(history), reply, (1 / count,) * len(reply)) for history, reply in turns]

    def without_terms(self, _response: Response) -> Rating:
        """Unscored."""
        return Rating(value=None, reason="no token to score")
