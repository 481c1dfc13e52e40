"""Pairs of responses with somebody's labels: what a judge is measured against.

Read as they are published: our own lines, JudgeBench, MT-Bench's human judgments, AlpacaEval's annotations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from dadpo_bench.errors import UserError
from dadpo_bench.recipe import explain
from dadpo_bench.records import read_records
from dadpo_bench.types import Prompt, Reply, Response, Value, content_key

_FIRST, _TIE, _SECOND = 1.0, 0.5, 0.0


class LabelledPair(Value):
    """Two responses to one prompt, and which is better in the eyes of each annotator."""

    first: Response
    second: Response
    labels: tuple[float, ...]
    """1 the first is better, 0 the second, ½ neither."""

    @property
    def texts(self) -> tuple[str, str]:
        """Both responses, as one text each."""
        return self.first.text, self.second.text


class LabelledSet(NamedTuple):
    """Pairs of one file."""

    name: str
    format: str
    pairs: tuple[LabelledPair, ...]

    @property
    def key(self) -> str:
        """Content hash of pairs and labels."""
        return content_key("labelled", [[p.first.prompt.key, p.texts, p.labels] for p in self.pairs])


class _Vote(NamedTuple):
    """One annotator's word on one pair."""

    turns: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...]
    label: float
    id: str
    category: str = ""
    system: str = ""
    reference: tuple[str, ...] = ()


def read_pairs(path: Path) -> LabelledSet:
    """The pairs of a file; votes on the same pair, in whatever order it was shown, are gathered.

    Raises `UserError` where the file is in no known format or a record is malformed, by its place.
    """
    votes: dict[str, tuple[Prompt, tuple[str, ...], tuple[str, ...], list[float]]] = {}
    known = ""
    for place, record in read_records(path, "labelled pairs"):
        known = known or _format(record, place)
        try:
            found = _FORMATS[known].record.model_validate(record)
        except ValidationError as error:
            raise UserError(f"{place}: no {known} record ({explain(error, '')})") from error
        for vote in found.votes():
            prompt = Prompt(
                id=vote.id, turns=vote.turns, category=vote.category, system=vote.system, reference=vote.reference
            )
            if not len(vote.turns) == len(vote.first) == len(vote.second) > 0:
                raise UserError(f"{place}: each turn needs one reply of either side")
            # The same pair shown the other way round is the same pair.
            turned = vote.first > vote.second
            sides = (vote.second, vote.first) if turned else (vote.first, vote.second)
            key = content_key(prompt.key, sides)
            votes.setdefault(key, (prompt, *sides, []))[3].append(1 - vote.label if turned else vote.label)
    if not votes:
        raise UserError(f"{path} holds no labelled pair")
    pairs = (
        LabelledPair(first=_response(prompt, first), second=_response(prompt, second), labels=tuple(labels))
        for prompt, first, second, labels in votes.values()
    )
    return LabelledSet(path.stem, known, tuple(pairs))


def _response(prompt: Prompt, texts: tuple[str, ...]) -> Response:
    return Response(prompt=prompt, replies=tuple(Reply(text=text) for text in texts))


def _format(record: Any, place: str) -> str:
    names = set(record) if isinstance(record, dict) else set()
    for name, known in _FORMATS.items():
        if known.fields <= names:
            return name
    needs = "; ".join(f"{name}: {', '.join(sorted(known.fields))}" for name, known in _FORMATS.items())
    raise UserError(f"{place}: labelled pairs in no known format (fields that must be there: {needs})")


_Text = Annotated[str, Field(strict=True)]
_Texts = Annotated[tuple[_Text, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
"""One a turn; of a single turn the text alone will do."""
_Label = Annotated[str, BeforeValidator(lambda value: "" if value is None else str(value))]


class _Record(BaseModel, ABC):
    """A record as it is published; what else it holds is not read."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    @abstractmethod
    def votes(self) -> Iterator[_Vote]:
        """What annotators said of the pair."""


_OWN = {"first": _FIRST, "second": _SECOND, "tie": _TIE}
_Said = Literal["first", "second", "tie"]


class _Own(_Record):
    turns: _Texts
    first: _Texts
    second: _Texts
    label: _Said | None = None
    labels: tuple[_Said, ...] | None = None
    id: _Label = ""
    category: _Label = ""
    system: _Label = ""
    reference: _Texts = ()

    @model_validator(mode="after")
    def _labelled(self) -> Self:
        if self.label is None and self.labels is None:
            raise ValueError("label: it is missing")
        return self

    def votes(self) -> Iterator[_Vote]:
        labels = self.labels if self.labels is not None else (self.label,)
        about = self.id, self.category, self.system, self.reference
        yield from (_Vote(self.turns, self.first, self.second, _OWN[label], *about) for label in labels if label)


class _JudgeBench(_Record):
    question: _Text
    first: _Text = Field(alias="response_A")
    second: _Text = Field(alias="response_B")
    label: Literal["A>B", "B>A", "A=B"]
    pair_id: _Label = ""
    source: _Label = ""

    def votes(self) -> Iterator[_Vote]:
        label = {"A>B": _FIRST, "B>A": _SECOND, "A=B": _TIE}[self.label]
        yield _Vote((self.question,), (self.first,), (self.second,), label, self.pair_id, self.source)


class _Message(BaseModel):
    role: str
    content: _Text


class _MTBench(_Record):
    winner: str
    turn: int
    conversation_a: tuple[_Message, ...]
    conversation_b: tuple[_Message, ...]
    question_id: _Label

    @field_validator("winner")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ("model_a", "model_b") and not value.startswith("tie"):
            raise ValueError(f"'model_a', 'model_b' or 'tie' expected, not {value[:40]!r}")
        return value

    def votes(self) -> Iterator[_Vote]:
        def said(conversation: Sequence[_Message], role: str) -> tuple[str, ...]:
            return tuple([message.content for message in conversation if message.role == role][: self.turn])

        yield _Vote(
            said(self.conversation_a, "user"),
            said(self.conversation_a, "assistant"),
            said(self.conversation_b, "assistant"),
            {"model_a": _FIRST, "model_b": _SECOND}.get(self.winner, _TIE),
            self.question_id,
        )


class _AlpacaEval(_Record):
    instruction: _Text
    output_1: _Text
    output_2: _Text
    preference: float | None
    index: _Label = ""
    dataset: _Label = ""

    @field_validator("preference")
    @classmethod
    def _graded(cls, value: float | None) -> float | None:
        if value is not None and value != 0 and not 1 <= value <= 2:
            raise ValueError(f"{value:g} is neither 0 nor from 1 to 2")
        return value

    def votes(self) -> Iterator[_Vote]:
        if self.preference is not None:  # else nobody said anything
            label = 2 - self.preference if self.preference else _TIE
            yield _Vote((self.instruction,), (self.output_1,), (self.output_2,), label, self.index, self.dataset)


class _Format(NamedTuple):
    fields: frozenset[str]
    """That a record must have to be of it."""
    record: type[_Record]


_FORMATS = {
    "dadpo-bench": _Format(frozenset({"turns", "first", "second"}), _Own),
    "JudgeBench": _Format(frozenset({"question", "response_A", "response_B", "label"}), _JudgeBench),
    "MT-Bench": _Format(frozenset({"winner", "turn", "conversation_a", "conversation_b"}), _MTBench),
    "AlpacaEval": _Format(frozenset({"instruction", "output_1", "output_2", "preference"}), _AlpacaEval),
}
