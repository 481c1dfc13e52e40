"""Pairs of responses with somebody's labels: what a judge is measured against.

Read as they are published: our own lines, JudgeBench, MT-Bench's human judgments, AlpacaEval's annotations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from dadpo_bench.errors import UserError
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
            found = list(_FORMATS[known].read(record))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"no '{error.args[0]}'" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{place}: no {known} record ({what})") from error
        for vote in found:
            try:
                prompt = Prompt(
                    id=vote.id, turns=vote.turns, category=vote.category, system=vote.system, reference=vote.reference
                )
            except ValidationError as error:
                raise UserError(f"{place}: no {known} record ({error.errors()[0]['msg']})") from error
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


def _texts(value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("text expected")
    return texts


def _own(record: Mapping[str, Any]) -> Iterator[_Vote]:
    labels = record["labels"] if "labels" in record else [record["label"]]
    for label in labels:
        if label not in _OWN:
            raise ValueError(f"label {label!r}: write one of {', '.join(_OWN)}")
        yield _Vote(
            _texts(record["turns"]),
            _texts(record["first"]),
            _texts(record["second"]),
            _OWN[label],
            str(record.get("id", "")),
            str(record.get("category", "")),
            str(record.get("system", "")),
            _texts(record.get("reference", ())),
        )


_OWN = {"first": _FIRST, "second": _SECOND, "tie": _TIE}


def _judgebench(record: Mapping[str, Any]) -> Iterator[_Vote]:
    labels = {"A>B": _FIRST, "B>A": _SECOND, "A=B": _TIE}
    if record["label"] not in labels:
        raise ValueError(f"label {record['label']!r}")
    yield _Vote(
        (record["question"],),
        (record["response_A"],),
        (record["response_B"],),
        labels[record["label"]],
        str(record.get("pair_id", "")),
        str(record.get("source", "")),
    )


def _mt_bench(record: Mapping[str, Any]) -> Iterator[_Vote]:
    labels = {"model_a": _FIRST, "model_b": _SECOND}
    winner = str(record["winner"])
    if winner not in labels and not winner.startswith("tie"):
        raise ValueError(f"winner {winner!r}")
    turns = int(record["turn"])

    def said(conversation: str, role: str) -> tuple[str, ...]:
        return _texts([m["content"] for m in record[conversation] if m["role"] == role][:turns])

    yield _Vote(
        said("conversation_a", "user"),
        said("conversation_a", "assistant"),
        said("conversation_b", "assistant"),
        labels.get(winner, _TIE),
        str(record["question_id"]),
    )


def _alpaca_eval(record: Mapping[str, Any]) -> Iterator[_Vote]:
    preference = record["preference"]
    if preference is None:  # nobody said anything
        return
    if preference != 0 and not 1 <= float(preference) <= 2:
        raise ValueError(f"preference {preference!r} is neither 0 nor from 1 to 2")
    label = _TIE if preference == 0 else 2 - float(preference)
    yield _Vote(
        (record["instruction"],),
        (record["output_1"],),
        (record["output_2"],),
        label,
        str(record.get("index", "")),
        str(record.get("dataset", "")),
    )


class _Format(NamedTuple):
    fields: frozenset[str]
    """That a record must have to be of it."""
    read: Callable[[Mapping[str, Any]], Iterator[_Vote]]


_FORMATS = {
    "dadpo-bench": _Format(frozenset({"turns", "first", "second"}), _own),
    "JudgeBench": _Format(frozenset({"question", "response_A", "response_B", "label"}), _judgebench),
    "MT-Bench": _Format(frozenset({"winner", "turn", "conversation_a", "conversation_b"}), _mt_bench),
    "AlpacaEval": _Format(frozenset({"instruction", "output_1", "output_2", "preference"}), _alpaca_eval),
}
