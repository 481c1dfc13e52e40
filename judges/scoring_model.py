"""A judge's model on this machine: found, known by its content, loaded when it is first used."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from dadpo_bench.models.chat import ChatTokenizer
from dadpo_bench.models.loading import load_model, load_tokenizer, weights_key
from dadpo_bench.models.precision import Precision, frozen
from dadpo_bench.types import JsonObject


class ScoringModel:
    """Raises `UserError` where the model cannot be found or read, or has no chat template."""

    def __init__(
        self,
        find: Callable[[], Path],
        chat_template: str | None = None,
        load: Callable[[Path, Precision], Any] = load_model,
    ) -> None:
        self._find, self._chat_template, self._load = find, chat_template, load

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which loads it itself."""
        return {name: value for name, value in vars(self).items() if name not in ("model", "tokenizer")}

    def identity(self) -> JsonObject:
        """What decides its numbers: weights and tokenizer, chat template, number format; never where it lies."""
        return {
            "scoring_model": self.key,
            "chat_template": self._chat_template,
            "precision": str(frozen()),
        }

    @cached_property
    def directory(self) -> Path:
        """Where it lies: absolute, for processes with another working directory."""
        return self._find().absolute()

    @cached_property
    def key(self) -> str:
        """Content hash."""
        return weights_key(self.directory)

    @cached_property
    def tokenizer(self) -> ChatTokenizer:
        """With its own chat template, or the one that was given."""
        return ChatTokenizer(load_tokenizer(self.directory, self._chat_template))

    @cached_property
    def model(self) -> Any:
        """In evaluation mode, on this machine's device."""
        return self._load(self.directory, frozen())

    @property
    def context(self) -> int | None:
        """Tokens that it reads at most, where its config tells."""
        context: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return context
