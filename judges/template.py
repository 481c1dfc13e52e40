"""Judge prompts: what is shown of two responses, or of one, filled in one pass.

Responses are written by the models under test, so nothing of them may act: placeholders in them are not
filled, control tokens are broken, and each reply stands in a fence whose marks are drawn anew for every call
(or hashed from all that is shown, where questions must be repeatable: `judges.chat.ChatJudge.fill`).
Published templates have no fence (`fenced` is false): they are rendered exactly as their authors do it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from dadpo_bench import registry
from dadpo_bench.registry import unknown
from dadpo_bench.types import Comparison, Message, Prompt, Response, Value
from judges.parsers import Offered, Parser
from judges.verdicts import Choice

Turns = Literal["all", "last"]

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_SECTION = re.compile(r"\{\+(\w+)\}")
_TURN = re.compile(r"(?:question|answer|answer_a|answer_b|reference)_(\d{1,3})")
_KNOWN = {
    "pairwise": {"question", "answer_a", "answer_b", "conversation_a", "conversation_b"},
    "pointwise": {"question", "answer", "conversation", "lowest", "highest"},
}
_GUIDES = ("reference", "checklist")
_WHOLE = {"conversation", "conversation_a", "conversation_b"}
_COUNTING: Mapping[Turns, str] = {"all": "all_turns", "last": "last_turn"}

# The judge's tokenizer is unknown to us: these are the shapes of the control tokens of common chat
# templates and of reasoning's ends. Every repetition is bounded, so the search is linear.
_CONTROL = re.compile(
    r"<(?=[|｜][^\s<>]{1,40}>)|<(?=[\w/]{1,20}[|｜]>)|<(?=/?s>|(?:start|end)_of_turn>|[be]os>|/?think(?:ing)?>)"
    r"|<(?=</?SYS>>)|\[(?=/?(?:INST|THINK|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_(?:CALLS|RESULTS))\]|\|[^\s\[\]]{1,40}\|\])"
    r"|◁(?=/?think▷)"
)
_SPEAKER = {"system": "Instruction to the assistant", "user": "User", "assistant": "Assistant"}


class Unfit(Exception):
    """A template cannot show this prompt; the message is what an unscored verdict says."""


class Body(Value):
    """One wording, and the prompts it is for."""

    system: str
    """Empty: no system message."""
    user: str
    several_turns: bool = False
    with_reference: bool = False
    """For prompts with a reference alone; other ones are for prompts with and without."""
    category: str = ""
    """For prompts of this category alone.

    Verdicts are kept by judge, responses and order, and a prompt's category is part of none. So responses that two
    tasks share, or that stay the same while their prompt gets another category, keep the verdict of the wording in
    which they were asked: of one run the last task's that has them, else the first run's. Tasks answered in batches
    of other prompts share no responses.
    """

    def suits(self, prompt: Prompt) -> bool:
        """Whether the prompt is one of those."""
        return (
            self.several_turns == (len(prompt.turns) > 1)
            and (not self.with_reference or bool(prompt.reference))
            and self.category in ("", prompt.category)
        )

    @property
    def placeholders(self) -> set[str]:
        """Everything to be filled in."""
        return set(_PLACEHOLDER.findall(self.system + self.user))


class Sampling(Value):
    """What the judge is asked with where its settings do not say."""

    temperature: float | None = Field(None, ge=0)
    max_tokens: int | None = Field(None, ge=1)
    top_logprobs: int | None = Field(None, ge=1, le=20)


class Template(Value):
    """One judge prompt. Raises `ValueError` for a placeholder, section or parser that does not exist."""

    kind: Literal["pairwise", "pointwise"] = "pairwise"
    """A verdict on two responses, or a rating of one."""
    parser: str
    bodies: tuple[Body, ...] = Field(min_length=1)
    """The first that suits a prompt is shown."""
    sections: Mapping[str, str] = {}
    """Parts that `{+NAME}` stands for: `reference` and `checklist` where the prompt has one, `all_turns` or
    `last_turn` as wished."""
    labels: Mapping[Choice, str] = {}
    scale: tuple[float, float] = (1.0, 10.0)
    """Lowest and highest rating."""
    label_mass: float = Field(0.5, ge=0, le=1)
    """Probability that both label tokens must have together for a preference from log-probs."""
    binary: bool = False
    """Whether a preference from log-probs counts as all or nothing."""
    sampling: Sampling = Sampling()
    placement: Literal["system", "user"] = "system"
    """Where the system text goes; `user` for models that know no system message: before the user's words."""
    turns: tuple[Turns, ...] = ("all",)
    """Which turns of a conversation can count, the usual first."""
    fenced: bool = True
    """False for published templates: nothing in a response is marked or broken."""
    sha256: str
    """Of its files as they lie on disk."""

    @field_validator("parser")
    @classmethod
    def _parses(cls, name: str) -> str:
        if name not in registry.parsers.names():
            raise ValueError(unknown("parser", name, registry.parsers.names()))
        return name

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: Mapping[Choice, str]) -> Mapping[Choice, str]:
        if not all(labels.values()):
            raise ValueError("no label may be empty")
        if len(set(labels.values())) < len(labels):
            raise ValueError("two labels are the same")
        return labels

    @model_validator(mode="after")
    def _fillable(self) -> Template:
        known = _KNOWN[self.kind] | {"open", "close", *_GUIDES, *self.labels}
        for text in (*(b.system + b.user for b in self.bodies), *self.sections.values()):
            extra = {name for name in _PLACEHOLDER.findall(text) if not _TURN.fullmatch(name)} - known
            if extra:
                raise ValueError(f"unknown placeholder {{{min(extra)}}}")
            extra = set(_SECTION.findall(text)) - set(self.sections)
            if extra:
                raise ValueError(f"no section '{min(extra)}'")
        if registry.parsers[self.parser].kind != self.kind:
            raise ValueError(f"parser {self.parser} is for {registry.parsers[self.parser].kind} templates")
        if self.kind == "pairwise" and not {Choice.first, Choice.second} <= set(self.labels):
            raise ValueError("labels must name first and second")
        return self

    @property
    def parse(self) -> Parser:
        """The function that reads the judge's answer."""
        parser: Parser = registry.parsers.load(self.parser)
        return parser

    @property
    def offered(self) -> Offered:
        """What the judge can say."""
        return Offered(self.labels, self.scale, self.label_mass, self.binary)

    @property
    def reads_logprobs(self) -> bool:
        """Whether preferences come from the log-probs of a token."""
        return registry.parsers[self.parser].logprobs

    @property
    def graded(self) -> bool:
        """Whether it says more than win, tie or loss."""
        return Choice.much_first in self.labels or (self.reads_logprobs and not self.binary)

    def fill(self, shown: Comparison | Response, nonce: str = "", turns: Turns | None = None) -> list[Message]:
        """The messages for one comparison or response. `nonce` marks the fence; drawn at random where none is given.

        Raises `Unfit` where no wording can show the prompt.
        """
        prompt = shown.prompt
        body = self._body(prompt, turns or self.turns[0])
        nonce = nonce or secrets.token_hex(8)
        fence = {"open": f"<<<{nonce}", "close": f"{nonce}>>>"}
        data = self._data(shown)

        def fenced(text: str) -> str:
            return f"{fence['open']}\n{inert(text)}\n{fence['close']}" if self.fenced else text

        values = {
            name: "\n\n".join(speaker + fenced(text) for speaker, text in data[name])
            for name in body.placeholders & set(data)
        }
        values |= fence | {str(choice): label for choice, label in self.labels.items()}
        values |= {"lowest": f"{self.scale[0]:g}", "highest": f"{self.scale[1]:g}"}
        for name in body.placeholders - set(values):
            raise Unfit(_lacking(name, prompt))
        if prompt.system and not body.placeholders & (_WHOLE | ({"question"} if self.fenced else set())):
            raise Unfit("template shows no system text")
        system, user = _fill(body.system, values), _fill(body.user, values)
        if self.placement == "user" and system:
            system, user = "", f"{system}\n\n{user}"
        return [Message(role="system", content=system)] * bool(system) + [Message(role="user", content=user)]

    def _body(self, prompt: Prompt, turns: Turns) -> Body:
        """The wording for this prompt, put together of its sections; no word of a response is in it yet."""
        body = next((body for body in self.bodies if body.suits(prompt)), None)
        if body is None:
            several = len(prompt.turns) > 1 and not any(body.several_turns for body in self.bodies)
            raise Unfit("template shows one turn" if several else f"template has no text for '{prompt.category}'")
        numbered = {int(found[1]) for name in body.placeholders if (found := _TURN.fullmatch(name))}
        if body.several_turns and numbered and max(numbered) != len(prompt.turns):
            raise Unfit(f"template shows {max(numbered)} turns")
        wanted = {name for name in _GUIDES if getattr(prompt, name)} | {_COUNTING[turns]}

        def assembled(text: str) -> str:
            put = _SECTION.sub(lambda match: self.sections[match[1]] if match[1] in wanted else "", text)
            return put.strip() if self.fenced else put

        return body.model_copy(update={"system": assembled(body.system), "user": assembled(body.user)})

    def _data(self, shown: Comparison | Response) -> dict[str, list[Said]]:
        """What can be put in: words of others, all of it."""
        prompt = shown.prompt
        data = {f"question_{n}": _text(turn) for n, turn in enumerate(prompt.turns, 1)}
        data["question"] = _transcript(prompt.messages()) if self.fenced else _text(prompt.turns[0])
        sides: Mapping[str, Response] = (
            {"": shown} if isinstance(shown, Response) else dict(zip(("_a", "_b"), shown.shown, strict=True))
        )
        for side, response in sides.items():
            replies = [reply.text for reply in response.replies]
            data |= {f"answer{side}_{n}": _text(reply) for n, reply in enumerate(replies, 1)}
            data |= {f"answer{side}": _text(response.text), f"conversation{side}": _conversation(prompt, replies)}
        if prompt.reference:
            data |= {f"reference_{n}": _text(answer) for n, answer in enumerate(prompt.reference, 1)}
            lone = len(prompt.turns) == 1
            data["reference"] = data["reference_1"] if lone else _conversation(prompt, prompt.reference, "Right answer")
        if prompt.checklist:
            data["checklist"] = _text("\n".join(f"{n}. {item}" for n, item in enumerate(prompt.checklist, 1)))
        return data


Said = tuple[str, str]
"""Who speaks, as a heading of ours, and words of theirs; the heading is empty where there is but one speaker."""


def _text(words: str) -> list[Said]:
    return [("", words)]


def _lacking(name: str, prompt: Prompt) -> str:
    for guide in _GUIDES:
        if name.startswith(guide):
            return f"no {guide}"
    return f"template shows more than {len(prompt.turns)} turns"


def _fill(text: str, values: Mapping[str, str]) -> str:
    # One pass over the template alone: what is put in is never looked at again.
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def inert(text: str) -> str:
    """`text` with a zero-width space in whatever looks like a chat template's control token."""
    return _CONTROL.sub(lambda match: f"{match[0]}\u200b", text)


def _conversation(prompt: Prompt, replies: Sequence[str], speaker: str = _SPEAKER["assistant"]) -> list[Said]:
    return _transcript(prompt.messages(tuple(replies)), speaker)


def _transcript(messages: list[Message], assistant: str = _SPEAKER["assistant"]) -> list[Said]:
    """Messages under the speaker's name; a user's lone message needs none.

    The names stand outside the fences: a reply that plays several turns is still one reply.
    """
    if len(messages) == 1:
        return _text(messages[0].content)
    speakers = _SPEAKER | {"assistant": assistant}
    return [(f"{speakers[message.role]}:\n", message.content) for message in messages]
