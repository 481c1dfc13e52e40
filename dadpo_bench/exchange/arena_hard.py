"""Arena-Hard-Auto's files, v0.1 and v2.0: questions, answers, pairwise judgments of two games each."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, field_validator, model_validator

from dadpo_bench.counts import counted
from dadpo_bench.errors import UserError
from dadpo_bench.exchange.parcel import Format, JudgedBy, Judgment, Parcel, Wanted
from dadpo_bench.exchange.reading import Record, records
from dadpo_bench.tasks import Task
from dadpo_bench.types import Order, Outcome, Prompt, Reply, Response, Verdict

_WHAT = "Arena-Hard"
_JUDGED = "arena-hard-judgments"
_VERSIONS = {
    "arena-hard-v0.1": "arena_hard_v0.1",
    "hard_prompt": "arena_hard_v2.0",
    "creative_writing": "arena_hard_v2.0",
}
"""Which version of the task a question's category belongs to."""
_BASELINES = {"arena_hard_v0.1": "gpt-4-0314"}
"""Of a version whose judgments do not name it."""

_SAID = re.compile(r"\[\[([AB<>=]++)\]\]")
_WORTH = {"A>>B": 1.0, "A>B": 0.75, "A=B": 0.5, "A<B": 0.25, "A<<B": 0.0}
_WORTH |= {"B>>A": 0.0, "B>A": 0.25, "B=A": 0.5, "B<A": 0.75, "B<<A": 1.0}
"""How much A's answer is preferred."""

_GAMES: tuple[Order, ...] = ("ba", "ab")
"""The first game shows the baseline's answer as A, the second the contestant's."""


class _Question(Record):
    uid: str
    prompt: str = Field(min_length=1)
    category: str = ""


class _Answer(Record):
    uid: str
    model: str = Field(min_length=1)
    messages: tuple[tuple[str, str], ...] = Field(min_length=2)
    """(role, text) of the question and the answer."""

    @field_validator("messages", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        def text(content: Any) -> Any:
            return content["answer"] if isinstance(content, Mapping) and "answer" in content else content

        return [(m["role"], text(m["content"])) for m in value] if isinstance(value, list) else value


class _Game(Record):
    score: str | None = None
    judgment: str = ""
    user_prompt: str = ""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("judgment"), Mapping):
            return {**value, "judgment": value["judgment"].get("answer", "")}
        return {} if value is None else value


class _Judgment(Record):
    uid: str
    model: str = Field(min_length=1)
    judge: str = Field(min_length=1)
    baseline: str = ""
    category: str = ""
    games: tuple[_Game, ...] = Field(min_length=1, max_length=2)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"uid": value["question_id"], **value} if isinstance(value, dict) and "question_id" in value else value


class _Read(NamedTuple):
    prompts: dict[str, Prompt]
    """By uid."""
    answers: dict[str, dict[str, str]]
    """By model and uid."""
    judgments: list[tuple[str, _Judgment]]


def _read(paths: Sequence[Path], wanted: Wanted) -> _Read:
    kinds: Mapping[str, type[Record]] = {"messages": _Answer, "games": _Judgment, "prompt": _Question}
    found = _Read({p.id: p for p in wanted.prompts}, defaultdict(dict), [])
    asked: dict[str, Prompt] = {}
    for place, record in records(paths, _WHAT, kinds):
        if isinstance(record, _Question):
            found.prompts[record.uid] = Prompt(id=record.uid, turns=(record.prompt,), category=record.category)
        elif isinstance(record, _Answer):
            said = dict(record.messages)
            if set(said) != {"user", "assistant"} or len(record.messages) != 2:
                raise UserError(f"{place}: an answer has one message of the user and one of the assistant")
            asked[record.uid] = Prompt(id=record.uid, turns=(said["user"],))
            if found.answers[record.model].setdefault(record.uid, said["assistant"]) != said["assistant"]:
                raise UserError(f"{place}: '{record.model}' answered {record.uid} otherwise before")
        elif isinstance(record, _Judgment):
            found.judgments.append((place, record))
    for uid, prompt in asked.items():
        if found.prompts.setdefault(uid, prompt).turns != prompt.turns:
            raise UserError(f"question {uid}: the answers are to another text than the questions' file has")
    return found


def _responses(found: _Read) -> dict[str, dict[str, Response]]:
    return {
        model: {
            found.prompts[uid].key: Response(prompt=found.prompts[uid], replies=(Reply(text=text),))
            for uid, text in given.items()
        }
        for model, given in found.answers.items()
    }


def _task(found: _Read, wanted: Wanted) -> Task:
    answered = {uid for given in found.answers.values() for uid in given}
    prompts = tuple(p for uid, p in found.prompts.items() if uid in answered)
    categories = [p.category for p in prompts] + [record.category for _, record in found.judgments]
    name = next((_VERSIONS[c] for c in categories if c in _VERSIONS), "arena_hard")
    return Task(name=wanted.task or name, domain="out", split="heldout", prompts=prompts)


def read_answers(paths: Sequence[Path], wanted: Wanted) -> Parcel:
    """Answers of any number of models; questions, among the files, give them their categories."""
    found = _read(paths, wanted)
    if not found.answers:
        raise UserError(f"{', '.join(map(str, paths))}: no answer")
    return Parcel(_task(found, wanted), _responses(found))


def read_judgments(paths: Sequence[Path], wanted: Wanted) -> Parcel:
    """Judgments, with the answer files of contestants and baseline among the files: judgments hold no texts.

    A verdict is read anew from the judge's words, the one label that they hold; the stored one counts. Five levels
    are preferences 1, ¾, ½, ¼, 0: Arena-Hard itself counts the outer two thrice. Raises `UserError` where an answer
    is missing, or judgments name several baselines.
    """
    found = _read(paths, wanted)
    if not found.judgments:
        raise UserError(f"{', '.join(map(str, paths))}: no judgment")
    task = _task(found, wanted)
    baselines = {record.baseline or _BASELINES.get(task.name, "") for _, record in found.judgments}
    if len(baselines) > 1:
        raise UserError(f"several baselines ({', '.join(sorted(baselines))}): import each one's judgments apart")
    baseline = baselines.pop()
    if not baseline:
        raise UserError("the judgments name no baseline; name the task with --task arena_hard_v0.1 where it is that")
    responses = _responses(found)
    judged: dict[str, list[Judgment]] = defaultdict(list)
    other: list[str] = []
    for place, record in found.judgments:
        for name in (record.model, baseline):
            if record.uid not in found.answers.get(name, {}):
                raise UserError(f"{place}: no answer of '{name}' to {record.uid}; name its answer file too")
        prompt = found.prompts[record.uid].key
        for order, game in zip(_GAMES, record.games, strict=False):
            verdict, remark = _verdict(game, order)
            judged[record.judge].append(Judgment(record.model, prompt, verdict, order))
            other += [f"{place}: {remark}"] if remark else []
    remarks = [f"{counted(len(other), 'verdicts')} read from the judge's words differ from the stored ones", *other[:5]]
    return Parcel(
        task,
        responses,
        baseline,
        [JudgedBy(name, "pairwise", {"imported": _JUDGED, "judge": name}, said) for name, said in judged.items()],
        remarks if other else (),
    )


def _verdict(game: _Game, order: Order) -> tuple[Verdict, str]:
    """The verdict, seen from the contestant, and how the judge's words differ from the stored score, if they do."""
    said = set(_SAID.findall(game.judgment)) & set(_WORTH)
    anew = said.pop() if len(said) == 1 else None
    remark = ""
    if game.judgment and anew != game.score:
        remark = f"{game.score or 'nothing'} is stored, {anew or 'nothing'} follows from the judge's words"
    kept = {"raw": json.dumps(game.model_dump(mode="json"), ensure_ascii=False)}
    worth = _WORTH.get(game.score or "")
    if worth is None:
        return Verdict(outcome=Outcome.unscored, reason="unparsable", **kept), remark
    worth = worth if order == "ab" else 1 - worth
    outcome = Outcome.win if worth > 0.5 else Outcome.loss if worth < 0.5 else Outcome.tie
    return Verdict(outcome=outcome, preference=worth, **kept), remark


def write_answers(parcel: Parcel) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The questions, and one file of answers a model."""
    rows = [{"uid": p.id, "category": p.category, "prompt": "\n\n".join(p.turns)} for p in parcel.task.prompts]
    yield "question.jsonl", rows
    for model, given in parcel.responses.items():
        yield f"model_answer/{model}.jsonl", [_answer(model, response) for response in given.values()]


def _answer(model: str, response: Response) -> dict[str, Any]:
    asked = {"role": "user", "content": "\n\n".join(response.prompt.turns)}
    said = {"role": "assistant", "content": {"answer": response.text}}
    return {"uid": response.prompt.id, "model": model, "messages": [asked, said]}


def write_judgments(parcel: Parcel) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Questions and answers, and one file of judgments a judge and contestant."""
    pairwise = [judge for judge in parcel.judged if judge.kind == "pairwise"]
    if pairwise:
        yield from write_answers(parcel)
    for judge in pairwise:
        games: dict[str, dict[str, dict[Order, Any]]] = defaultdict(lambda: defaultdict(dict))
        for judgment in judge.judgments:
            if isinstance(judgment.said, Verdict):
                games[judgment.contestant][judgment.prompt][judgment.order] = _game(judgment.said, judgment.order)
        for contestant, by_prompt in games.items():
            rows = []
            for prompt, played in by_prompt.items():
                asked = parcel.responses[contestant][prompt].prompt
                who = {"uid": asked.id, "category": asked.category, "judge": judge.name, "model": contestant}
                listed = [played.get(order) for order in _GAMES]
                while listed and listed[-1] is None:
                    listed.pop()
                rows.append({**who, "baseline": parcel.baseline, "games": listed})
            yield f"model_judgment/{judge.name}/{contestant}.jsonl", rows


def _game(said: Verdict, order: Order) -> dict[str, Any]:
    try:
        return _Game.model_validate(json.loads(said.raw)).model_dump(mode="json")
    except (ValueError, RecursionError):
        pass
    worth = said.worth
    if worth is None:
        return {"score": None, "judgment": said.raw}
    shown = worth if order == "ab" else 1 - worth
    nearest = min(("A>>B", "A>B", "A=B", "A<B", "A<<B"), key=lambda label: abs(_WORTH[label] - shown))
    return {"score": nearest, "judgment": said.raw}


ANSWERS = Format("Arena-Hard: answers and questions (.jsonl)", read_answers, write_answers)
JUDGMENTS = Format(
    "Arena-Hard: judgments of two games, with the answer files of contestants and baseline (.jsonl)",
    read_judgments,
    write_judgments,
)
