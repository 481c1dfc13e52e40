"""A recipe's teacher: on this machine, or behind an endpoint."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from dadpo_bench.addresses import checked_url, host_of
from dadpo_bench.types import Value

PLACES = dict.fromkeys(("endpoint", "weights", "api_key_env", "concurrency", "timeout_seconds", "batch_tokens"), True)
"""Of a teacher: where it is asked and how, which decides nothing."""


class Teacher(Value):
    """The large model whose conversations are distilled: on this machine, or behind an endpoint."""

    model: str = Field(
        description="Embedded name, local directory or Hugging Face id; with an endpoint the model's name there."
    )
    chat_template: str | None = Field(
        None,
        description="Jinja template, for tokenizers that come without one. A server uses its own: start it with the "
        "same one.",
    )
    endpoint: str | tuple[str, ...] | None = Field(
        None, description="URL of the server that has the model, or a list of URLs of equal servers; http://HOST:8000."
    )
    protocol: Literal["vllm", "sglang", "openai"] | None = Field(
        None,
        description="What the endpoint speaks: vllm and sglang give the log-probs of token ids, which dadpo learns "
        "from; any OpenAI-compatible endpoint (openai) can teach sft and dpo.",
    )
    tokenizer: str | None = Field(
        None,
        description="Whose tokenizer the served model has: embedded name, local directory or Hugging Face id. Needed "
        "by vllm and sglang. Named, the model is known by it and by its name, wherever it is served.",
    )
    weights: str | None = Field(
        None, description="The served model's weights, where they are at hand, to hold its log-probs against."
    )
    api_key_env: str | None = Field(
        None,
        description="NAME, in capitals, of the environment variable that holds the endpoint's key, never the key "
        "itself. Left out: none is sent to vllm and sglang; OPENAI_API_KEY's is to openai, unless it is local.",
    )
    concurrency: int | None = Field(None, ge=1, description="Requests in flight at once at each URL; 8 if left out.")
    timeout_seconds: float | None = Field(
        None, gt=0, description="Limit on one attempt at a request, seconds; 300 if left out."
    )
    batch_tokens: int | None = Field(
        None, ge=1, description="Tokens of one request for log-probs, if it has several sequences; 16384 if left out."
    )

    @model_validator(mode="after")
    def _served(self) -> Teacher:
        if self.endpoint is None:
            if given := [name for name in (*PLACES, "protocol", "tokenizer") if getattr(self, name) is not None]:
                raise ValueError(f"{given[0]} is of a teacher behind an endpoint: name its endpoint too")
            return self
        if not self.urls:
            raise ValueError("endpoint names no URL")
        for url in self.urls:
            checked_url(url, "teacher.endpoint")
        if self.protocol is None:
            raise ValueError("say what its endpoint speaks: protocol: vllm, sglang or openai")
        if self.protocol != "openai" and self.tokenizer is None:
            raise ValueError(f"name the model's tokenizer (tokenizer: …): {self.protocol} is sent token ids")
        if self.api_key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env):
            raise ValueError("api_key_env is the NAME, in capitals, of the environment variable that holds the key")
        return self

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it is served; none where it is on this machine."""
        return (self.endpoint,) if isinstance(self.endpoint, str) else self.endpoint or ()

    @property
    def host(self) -> str:
        """Of the first URL."""
        return host_of(checked_url(self.urls[0], "teacher.endpoint"))

    @property
    def vouched(self) -> bool:
        """Whether the recipe says which model is served, so that where it is served decides nothing.

        A name alone may be an alias that every host understands in its own way; one with a tokenizer is somebody's word
        that these are the same weights at every URL, today's and tomorrow's. Nobody can verify either.
        """
        return self.tokenizer is not None

    @property
    def gives(self) -> frozenset[str]:
        """Which signals methods may read of it."""
        if self.endpoint is None:
            return frozenset({"teacher", "teacher_logits"})
        return frozenset() if self.protocol == "openai" else frozenset({"teacher"})
