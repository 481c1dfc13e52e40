"""Judge prompts: TOML files in `templates/`, loaded, hashed, and filled in one pass.

Responses are written by the models under test, so nothing of them may act: placeholders in them are not
filled, control tokens are broken, and each stands in a fence whose marks are drawn anew for every call.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError, ValidationInfo, field_validator

from dadpo_bench.errors import UserError
from dadpo_bench.registry import unknown
from dadpo_bench.types import Comparison, Message, Response, Value
from judges.verdicts import PARSERS, Choice, Parser

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_EVERYWHERE = {"open", "close", *Choice}
_KNOWN = {
    "system": _EVERYWHERE,
    "single_turn": _EVERYWHERE | {"question", "answer_a", "answer_b"},
    "multi_turn": _EVERYWHERE | {"conversation_a", "conversation_b"},
}

# The judge's tokenizer is unknown to us: these are the shapes of the control tokens of common chat
# templates. Every repetition is bounded, so the search is linear.
_CONTROL = re.compile(
    r"<(?=[|｜][^\s<>]{1,40}>)|<(?=[\w/]{1,20}[|｜]>)|<(?=/?s>|(?:start|end)_of_turn>|[be]os>)|\[(?=/?INST\])"
)
_SPEAKER = {"system": "Instruction to the assistant", "user": "User", "assistant": "Assistant"}


class Template(Value):
    """One judge prompt. Raises `ValueError` for a placeholder or a parser that does not exist."""

    parser: str
    system: str
    single_turn: str
    multi_turn: str
    labels: Mapping[Choice, str]
    sha256: str
    """Of the file as it lies on disk."""

    @field_validator("system", "single_turn", "multi_turn")
    @classmethod
    def _fillable(cls, text: str, info: ValidationInfo) -> str:
        extra = set(_PLACEHOLDER.findall(text)) - _KNOWN[str(info.field_name)]
        if extra:
            raise ValueError(f"unknown placeholder {{{min(extra)}}}")
        return text

    @field_validator("parser")
    @classmethod
    def _parses(cls, name: str) -> str:
        if name not in PARSERS:
            raise ValueError(unknown("parser", name, sorted(PARSERS)))
        return name

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: Mapping[Choice, str]) -> Mapping[Choice, str]:
        if set(labels) != set(Choice) or not all(labels.values()):
            raise ValueError("labels must name first, second and tie, none of them empty")
        if len(set(labels.values())) < len(labels):
            raise ValueError("two labels are the same")
        return labels

    @property
    def parse(self) -> Parser:
        """The function that reads the judge's answer."""
        return PARSERS[self.parser]

    def fill(self, comparison: Comparison, nonce: str = "") -> list[Message]:
        """The messages for one comparison. `nonce` marks the fence; drawn at random where none is given."""
        first, second = comparison.shown
        nonce = nonce or secrets.token_hex(8)
        if len(comparison.prompt.turns) > 1:
            body = self.multi_turn
            data = {"conversation_a": _conversation(first), "conversation_b": _conversation(second)}
        else:
            body = self.single_turn
            data = {
                "question": _transcript(comparison.prompt.messages()),
                "answer_a": first.text,
                "answer_b": second.text,
            }
        fence = {"open": f"<<<{nonce}", "close": f"{nonce}>>>"}
        values = {key: f"{fence['open']}\n{inert(text)}\n{fence['close']}" for key, text in data.items()}
        values |= fence | {str(choice): label for choice, label in self.labels.items()}
        return [
            Message(role="system", content=_fill(self.system, values)),
            Message(role="user", content=_fill(body, values)),
        ]


def _fill(text: str, values: Mapping[str, str]) -> str:
    # One pass over the template alone: what is put in is never looked at again.
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text).strip()


def inert(text: str) -> str:
    """`text` with a zero-width space in whatever looks like a chat template's control token."""
    return _CONTROL.sub(lambda match: f"{match[0]}\u200b", text)


def _conversation(response: Response) -> str:
    replies = tuple(reply.text for reply in response.replies)
    return _transcript(response.prompt.messages(replies))


def _transcript(messages: list[Message]) -> str:
    """Messages under the speaker's name; a user's lone message needs none."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{_SPEAKER[message.role]}:\n{message.content}" for message in messages)


def load(name: str) -> Template:
    """The shipped template of that name, or the file where `name` ends in `.toml`.

    Raises `UserError` where there is none, or where it is no valid template.
    """
    folder = files("judges") / "templates"
    if name.endswith(".toml"):
        file = Path(name).expanduser()
        if not file.is_file():
            raise UserError(f"no judge template {name}")
        content = file.read_bytes()
    else:
        known = sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))
        if name not in known:
            raise UserError(unknown("judge template", name, known))
        content = (folder / f"{name}.toml").read_bytes()
    try:
        settings = tomllib.loads(content.decode())
        return Template(**settings, sha256=hashlib.sha256(content).hexdigest())
    except (ValidationError, ValueError, TypeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UserError(f"judge template {name}: {reason}") from error
