"""MT-Bench's files, as FastChat writes them: questions, answers, single-answer judgments."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from pydantic import Field

from dadpo_bench.counts import counted
from dadpo_bench.errors import UserError
from dadpo_bench.exchange.parcel import Format, JudgedBy, Judgment, Parcel, Wanted
from dadpo_bench.exchange.reading import Id, Label, Name, Record, nothing, records
from dadpo_bench.tasks import Task
from dadpo_bench.tasks.data_set import checked
from dadpo_bench.types import Prompt, Rating, Reply, Response

_WHAT = "MT-Bench"
_TASK = "mt_bench"
_ANSWERED, _JUDGED = "mt-bench-answers", "mt-bench-judgments"
_RATING = (re.compile(r"\[\[(\d{1,4}(?:\.\d{0,6})?)\]\]"), re.compile(r"\[(\d{1,4}(?:\.\d{0,6})?)\]"))
"""FastChat reads the first `[[number]]`, and the first `[number]` where there is none."""
_UNREAD = -1
"""FastChat's score of a judgment that it could not read."""


class _Question(Record):
    question_id: Id
    turns: tuple[str, ...] = Field(min_length=1)
    category: Label = ""
    reference: tuple[str, ...] = ()


class _Choice(Record):
    turns: tuple[str, ...] = Field(min_length=1)


class _Answer(Record):
    question_id: Id
    model_id: Name
    choices: tuple[_Choice, ...] = Field(min_length=1)


class _Judgment(Record):
    question_id: Id
    model: Name
    judge: tuple[Name, ...] = Field(min_length=1)
    """The judge model, and the name of the prompt that it was asked by."""
    user_prompt: str = ""
    judgment: str
    score: float = Field(ge=-1e4, le=1e4)
    turn: int = Field(ge=1, le=9)


class _Pair(Record):
    g1_winner: str


class _Read(NamedTuple):
    questions: dict[str, Prompt]
    answers: dict[tuple[str, str], tuple[str, ...]]
    """By model and question: the reply to each turn."""
    judgments: dict[tuple[str, str, str], dict[int, tuple[str, _Judgment]]]
    """By judge, model and question, then by turn; the place first."""


def _read(paths: Sequence[Path], told: Callable[[], None]) -> _Read:
    kinds: Mapping[str, type[Record]] = {
        "choices": _Answer,
        "judgment": _Judgment,
        "turns": _Question,
        "g1_winner": _Pair,
    }
    found = _Read({}, {}, defaultdict(dict))
    for place, record in records(paths, told, _WHAT, kinds):
        if isinstance(record, _Question):
            fields = {"turns": record.turns, "category": record.category, "reference": record.reference}
            prompt = checked(Prompt(id=record.question_id, **fields), place)
            if found.questions.setdefault(prompt.id, prompt) != prompt:
                raise UserError(f"{place}: another question was called {prompt.id} before")
        elif isinstance(record, _Answer):
            given = found.answers.setdefault((record.model_id, record.question_id), record.choices[0].turns)
            if given != record.choices[0].turns:
                raise UserError(f"{place}: '{record.model_id}' answered question {record.question_id} otherwise before")
        elif isinstance(record, _Judgment):
            turns = found.judgments[record.judge[0], record.model, record.question_id]
            if record.turn in turns:
                raise UserError(f"{place}: turn {record.turn} was judged before, at {turns[record.turn][0]}")
            turns[record.turn] = place, record
        else:
            raise UserError(f"{place}: a pairwise judgment; what is read are single answers' (…_single.jsonl)")
    return found


def read_answers(paths: Sequence[Path], wanted: Wanted) -> Parcel:
    """Answers of any number of models. Their questions come with them (question.jsonl), or are the task's."""
    found = _read(paths, wanted.told)
    responses: dict[str, dict[str, Response]] = defaultdict(dict)
    for (model, question), turns in found.answers.items():
        prompt = _question(found.questions, question)
        responses[model][prompt.key] = _response(prompt, turns, f"'{model}', question {question}")
    if not responses:
        raise nothing("answer", paths, _JUDGED if found.judgments else "")
    return Parcel(_task(wanted, found.questions.values()), responses, wanted.baseline or "")


def _question(questions: Mapping[str, Prompt], id: str) -> Prompt:
    if id not in questions:
        raise UserError(f"question {id} is unknown: name MT-Bench's question.jsonl among the files")
    return questions[id]


def _response(prompt: Prompt, turns: Sequence[str], whose: str) -> Response:
    if len(turns) != len(prompt.turns):
        raise UserError(f"{whose}: {counted(len(turns), 'answers')} to {counted(len(prompt.turns), 'turns')}")
    return Response(prompt=prompt, replies=tuple(Reply(text=text) for text in turns))


def _task(wanted: Wanted, prompts: Any) -> Task:
    return Task(name=wanted.task or _TASK, domain="out", split="heldout", prompts=tuple(prompts))


def read_judgments(paths: Sequence[Path], wanted: Wanted) -> Parcel:
    """Single-answer judgments, with answers and questions where those are among the files.

    Without them a conversation is what the judge was shown. A rating is read anew from the judge's words. Where the
    two differ the stored one counts, and a remark tells it. A response of which one turn was not judged, or
    could not be read (−1), is unscored where it is compared; its other turns count in single scores, as in FastChat's.
    """
    found = _read(paths, wanted.told)
    responses: dict[str, dict[str, Response]] = defaultdict(dict)
    judged: dict[str, list[Judgment]] = defaultdict(list)
    other: list[str] = []
    # Whoever was shown the most turns first: they are the question.
    for (judge, model, question), turns in sorted(found.judgments.items(), key=lambda item: -len(item[1])):
        response = _judged_response(found, model, question, turns)
        if beyond := next((turn for turn in turns if turn > len(response.replies)), None):
            asked = counted(len(response.replies), "turns")
            raise UserError(f"{turns[beyond][0]}: a judgment of turn {beyond} where the question has {asked}")
        responses[model][response.prompt.key] = response
        judged[judge].append(Judgment(model, response.prompt.key, _rating(response, turns)))
        other += _differences(turns)
    if not judged:
        raise nothing("judgment", paths, _ANSWERED if found.answers else "")
    remarks = [
        f"{counted(len(other), 'ratings')} read from the judge's words: not what is stored, which counts",
        *other,
    ]
    return Parcel(
        _task(wanted, found.questions.values()),
        responses,
        wanted.baseline or "",
        judged=[
            JudgedBy(name, "pointwise", {"imported": _JUDGED, "judge": name}, said) for name, said in judged.items()
        ],
        remarks=remarks if other else (),
    )


def _judged_response(found: _Read, model: str, question: str, turns: Mapping[int, tuple[str, _Judgment]]) -> Response:
    place = next(iter(turns.values()))[0]
    whose = f"{place}: '{model}', question {question}"
    shown = {turn: record.user_prompt for turn, (_, record) in sorted(turns.items())}
    if (model, question) in found.answers:
        return _response(_question(found.questions, question), found.answers[model, question], whose)
    conversation = _shown(shown)
    if conversation is None:
        raise UserError(f"{whose}: the judge's prompt shows no answer; name the model's answer file among the files")
    said, replies = conversation
    prompt = found.questions.setdefault(question, checked(Prompt(id=question, turns=said), whose))
    if prompt.turns[: len(said)] != said:
        raise UserError(
            f"{whose}: the judge was shown another question; name MT-Bench's question.jsonl among the files"
        )
    return _response(prompt, replies, whose)


_FIRST = re.compile(r"\[Question\]\n(.*?)\n\n\[The Start of ", re.DOTALL)
_ANSWER = ("[The Start of Assistant's Answer]\n", "\n[The End of Assistant's Answer]")
_USER, _ASSISTANT = "### User:\n", "\n\n### Assistant A:\n"
_LATER = ("<|The Start of Assistant A's Conversation with User|>\n\n", "\n\n<|The End of Assistant A's Conversation")


def _shown(prompts: Mapping[int, str]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """(the user's turns, the replies) as FastChat's prompts of both turns show them; None where they do not.

    The first turn's text bounds the second's: what looks like a mark within an answer is none.
    """
    first = _FIRST.search(prompts.get(1, ""))
    reply = _between(prompts.get(1, ""), *_ANSWER)
    if first is None or reply is None or set(prompts) - {1, 2}:
        return None
    if 2 not in prompts:
        return (first[1],), (reply,)
    before = f"{_USER}{first[1]}{_ASSISTANT}{reply}\n\n{_USER}"
    conversation = _between(prompts[2], _LATER[0], _LATER[1])
    if conversation is None or not conversation.startswith(before) or _ASSISTANT not in conversation[len(before) :]:
        return None
    asked, _, answered = conversation[len(before) :].partition(_ASSISTANT)
    return (first[1], asked), (reply, answered)


def _between(text: str, start: str, end: str) -> str | None:
    _, opened, rest = text.partition(start)
    inner, closed, _ = rest.rpartition(end)
    return inner if opened and closed else None


def _rating(response: Response, turns: Mapping[int, tuple[str, _Judgment]]) -> Rating:
    said = {turn: record for turn, (_, record) in sorted(turns.items())}
    raw = json.dumps([record.model_dump(mode="json") for record in said.values()], ensure_ascii=False)
    asked = range(1, len(response.replies) + 1)
    by_turn = tuple(said[n].score if n in said and said[n].score != _UNREAD else None for n in asked)
    values = [score for score in by_turn if score is not None]
    if len(values) == len(by_turn):
        return Rating(value=fmean(values), by_turn=by_turn, raw=raw)
    gap = by_turn.index(None) + 1
    reason = f"unparsable (turn {gap})" if gap in said else f"turn {gap} was not judged"
    return Rating(value=None, by_turn=by_turn if values else (), reason=reason, raw=raw)


def _differences(turns: Mapping[int, tuple[str, _Judgment]]) -> Iterator[str]:
    for place, record in turns.values():
        found = next((match for pattern in _RATING if (match := pattern.search(record.judgment))), None)
        anew = float(found[1]) if found else _UNREAD
        if anew != record.score:
            yield f"{place}: {record.score:g} is stored, {anew:g} follows from the judge's words"


def write_answers(parcel: Parcel) -> Iterator[tuple[tuple[str, ...], list[dict[str, Any]]]]:
    """The questions, and one file of answers a model."""
    yield from _questions(parcel)
    ids = parcel.ids
    for model, given in parcel.responses.items():
        yield (
            ("model_answer", f"{model}.jsonl"),
            [
                {
                    "question_id": _number(ids[key]),
                    "model_id": model,
                    "choices": [{"index": 0, "turns": [reply.text for reply in response.replies]}],
                }
                for key, response in given.items()
            ],
        )


def _questions(parcel: Parcel) -> Iterator[tuple[tuple[str, ...], list[dict[str, Any]]]]:
    fields, ids = {"category", "turns", "reference"}, parcel.ids
    rows = [
        {"question_id": _number(ids[p.key]), **p.model_dump(mode="json", include=fields, exclude_defaults=True)}
        for p in parcel.task.prompts
    ]
    yield ("question.jsonl",), rows


def _number(id: str) -> int | str:
    return int(id) if re.fullmatch("0|[1-9][0-9]{0,8}", id) else id


def write_judgments(parcel: Parcel) -> Iterator[tuple[tuple[str, ...], list[dict[str, Any]]]]:
    """Questions and answers, and one file of judgments a judge; of our own judges, without the judge's prompt."""
    ids = parcel.ids
    rated = [judge for judge in parcel.judged if judge.kind == "pointwise"]
    if rated:
        yield from write_answers(parcel)
    for judge in rated:
        rows = [row for said in judge.judgments for row in _turns(judge, said, _number(ids[said.prompt]))]
        yield ("model_judgment", f"{judge.name}_single.jsonl"), rows


def _turns(judge: JudgedBy, judgment: Judgment, question: int | str) -> Iterator[dict[str, Any]]:
    said = judgment.said
    assert isinstance(said, Rating)
    who = {"question_id": question, "model": judgment.contestant}
    if judge.identity.get("imported") == _JUDGED and (stored := _records(said.raw)):
        yield from ({**record, **who} for record in stored)
        return
    values = said.by_turn or (() if said.value is None else (said.value,))
    for turn, value in enumerate(values or (None,), 1):
        how = {"judge": [judge.name, "dadpo-bench"], "user_prompt": "", "judgment": said.raw}
        yield {**who, **how, "score": _UNREAD if value is None else value, "turn": turn}


def _records(raw: str) -> list[dict[str, Any]]:
    """What `_rating` kept; of any other judge its words are just words."""
    try:
        return [_Judgment.model_validate(record).model_dump(mode="json") for record in json.loads(raw)]
    except (ValueError, TypeError, RecursionError):
        return []


ANSWERS = Format(
    "MT-Bench: answers and questions of FastChat (.jsonl)", read_answers, write_answers, {"choices": _Answer}
)
JUDGMENTS = Format(
    "MT-Bench: single-answer judgments of FastChat; answers and questions may be among the files (.jsonl)",
    read_judgments,
    write_judgments,
    {"judgment": _Judgment},
)
