"""A teacher behind an endpoint: what it is known by, how it answers, and who scores tokens by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from dadpo_bench import registry
from dadpo_bench.errors import WorkError
from dadpo_bench.models import chat_tokenizer, tokenizer_key
from dadpo_bench.models.loading import find_tokenizer
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.drawing import Drawing
from dadpo_bench.stages.endpoint_responses import BACKEND, RemoteModel, collect_remote_responses
from dadpo_bench.stages.responses import Responses, Stored
from dadpo_bench.teacher import Teacher
from dadpo_bench.types import JsonObject, Prompt, Reply, Sampling, TokenScorer, content_key

_TIMEOUT_SECONDS = 300.0
_HEALTH = {"vllm": "/health", "sglang": "/health", "openai": "/v1/models"}


@dataclass(frozen=True)
class ServedModel:
    """A model behind one URL or several.

    Its key is made of its name, tokenizer, chat template and protocol where the recipe names the tokenizer
    (`Teacher.vouched`): another port, host or number of servers then pays for nothing twice. It is that of any model
    at an endpoint, host and name, where it does not. Which weights answer, nobody can verify.
    """

    teacher: Teacher

    @property
    def name(self) -> str:
        """The last part of the name that it has at the endpoint."""
        return Path(self.teacher.model).name

    @cached_property
    def directory(self) -> Path | None:
        """Where its tokenizer lies; None where none is named."""
        return None if self.teacher.tokenizer is None else find_tokenizer(self.teacher.tokenizer)

    @property
    def chat_template(self) -> str | None:
        """The recipe's."""
        return self.teacher.chat_template

    @cached_property
    def key(self) -> str:
        """See the class."""
        teacher = self.teacher
        if self.directory is None:
            return content_key("endpoint", teacher.host, teacher.model)
        return content_key("served", teacher.protocol, teacher.model, tokenizer_key(self.directory), self.chat_template)

    @property
    def precision(self) -> str:
        """What stands for a number format in its signals' keys: scores of a server never pass for those made here."""
        return f"served:{self.teacher.protocol}"

    @cached_property
    def scorer(self) -> TokenScorer:
        """Raises `UserError` for a missing API key."""
        settings = {"protocol": self.teacher.protocol, **self._settings}
        found: TokenScorer = registry.resolve(registry.backends[BACKEND].scoring)(settings)
        return found

    def answering(self, sampling: Sampling, seed: int) -> RemoteModel:
        """Itself, answering chats so. Raises `UserError` for a missing API key."""
        drawn = {"max_tokens": sampling.max_new_tokens, "top_p": sampling.top_p, "seed": seed}
        ids = {"token_ids": True} if self.teacher.protocol == "vllm" else {}
        answering: Any = registry.resolve(registry.backends[BACKEND].answering)
        answerer = answering({**self._settings, **drawn, **ids}, teacher=True)
        return RemoteModel(self.teacher.model, answerer, self.key if self.teacher.vouched else "")

    @property
    def _settings(self) -> JsonObject:
        teacher = self.teacher
        # Whatever speaks vLLM's or SGLang's protocol has OpenAI's at /v1.
        urls = [url.rstrip("/").removesuffix("/v1") + "/v1" for url in teacher.urls]
        # A key that is set for a judge must not go to servers of one's own.
        nameless = None if teacher.protocol == "openai" else ""
        given = {"api_key_env": teacher.api_key_env or nameless, "concurrency": teacher.concurrency}
        return {
            "model": teacher.model,
            "base_url": teacher.urls if teacher.protocol == "openai" else tuple(urls),
            "health": _HEALTH[teacher.protocol or "openai"],
            "timeout_seconds": teacher.timeout_seconds or _TIMEOUT_SECONDS,
            **{name: value for name, value in given.items() if value is not None},
        }


def collect_served_responses(
    bench: Bench, model: ServedModel, prompts: Sequence[Prompt], drawing: Drawing, label: str
) -> Responses:
    """The teacher's responses to `prompts`, in their order, through its chat endpoint; only what is owed is asked.

    Sampled ids are kept where the server tells them and they are those of the tokenizer that the recipe names.
    Raises `WorkError` where a prompt stays unanswered: nobody is taught, or compared, by half a teacher.
    """
    remote = model.answering(drawing.sampling, drawing.seed or 0)
    found = collect_remote_responses(bench, remote, prompts, [drawing.of(p) for p in prompts], label)
    if missing := len(prompts) - len(found):
        unanswered = {p.key for p in prompts} - {p.key for p, _ in found.places}
        first = next(p for p in prompts if p.key in unanswered)
        raise WorkError(
            f"{label}: {missing} of {len(prompts)} prompts are owed, the first is '{first.id}'; run the same command "
            "again, and take out of the prompts what the endpoint always refuses"
        )
    return Responses(bench.store, found.places, partial(_with_known_ids, model))


def _with_known_ids(model: ServedModel, stored: Stored) -> Stored:
    def known(reply: Reply) -> bool:
        if model.directory is None:
            return False
        said = chat_tokenizer(str(model.directory), model.chat_template).decode(reply.token_ids)
        return said.strip() == reply.text.strip()

    replies = tuple(
        reply if not reply.token_ids or known(reply) else reply.model_copy(update={"token_ids": ()})
        for reply in stored.response.replies
    )
    return stored._replace(response=stored.response.model_copy(update={"replies": replies}))
