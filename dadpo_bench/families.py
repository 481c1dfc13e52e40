"""Families of models, by their names: a judge may favour its own kin."""

from __future__ import annotations

import re

_KIN = {
    "alpaca": "llama",
    "chatgpt": "gpt",
    "codellama": "llama",
    "davinci": "gpt",
    "mixtral": "mistral",
    "ministral": "mistral",
    "qwq": "qwen",
    "tulu": "llama",
    "vicuna": "llama",
    "zephyr": "mistral",
}
"""Names that models of a family have, where they do not carry the family's own."""

_FAMILIES = {
    "claude",
    "command",
    "deepseek",
    "falcon",
    "gemini",
    "gemma",
    "glm",
    "gpt",
    "granite",
    "llama",
    "mistral",
    "olmo",
    "phi",
    "qwen",
    "smollm",
    "yi",
    *_KIN.values(),
}


def families(*names: str) -> set[str]:
    """The families that model names (or a config's `model_type`) tell of; empty for a name that tells of none."""
    words = {word for name in names for word in re.findall(r"[a-z]+", name.lower())}
    # "o1", "o3-mini", …: OpenAI's reasoning models are called by a letter alone.
    kin = {"gpt"} if any(re.fullmatch(r"o\d(-.*)?", name.rpartition("/")[2].lower()) for name in names) else set()
    return kin | {_KIN.get(word, word) for word in words if word in _FAMILIES or word in _KIN}
