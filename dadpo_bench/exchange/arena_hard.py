"""Arena-Hard-Auto's files: questions, answers, pairwise judgments of two games each.

Its code wrote two forms: `question_id`, `turns`, `choices` until the end of v0.1, `uid`, `prompt`, `messages` since
v2.0. Both are read, the later is written.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import AliasChoices, Field, field_validator

from dadpo_bench.counts import counted
from dadpo_bench.errors import UserError
from dadpo_bench.exchange.parcel import Format, JudgedBy, Judgment, Parcel, Wanted
from dadpo_bench.exchange.reading import Id, Label, Name, Record, nothing, records
from dadpo_bench.tasks import Task
from dadpo_bench.tasks.arena_hard import CREATIVE, HARD
from dadpo_bench.tasks.data_set import checked
from dadpo_bench.types import Order, Outcome, Prompt, Reply, Response, Verdict

_WHAT = "Arena-Hard"
_ANSWERED, _JUDGED = "arena-hard-answers", "arena-hard-judgments"


class _Half(NamedTuple):
    """The questions of one category."""

    task: str
    baseline: str


_HALVES = {
    "arena-hard-v0.1": _Half("arena_hard_v0.1", "gpt-4-0314"),
    "hard_prompt": _Half("arena_hard_v2.0", HARD),
    "creative_writing": _Half("arena_hard_v2.0", CREATIVE),
}

_WORTH = {"A>>B": 1.0, "A>B": 0.75, "A=B": 0.5, "A<B": 0.25, "A<<B": 0.0}
_WORTH |= {"B>>A": 0.0, "B>A": 0.25, "B=A": 0.5, "B<A": 0.75, "B<<A": 1.0}
"""How much A's answer is preferred."""

_GAMES: tuple[Order, ...] = ("ba", "ab")
"""The first game shows the baseline's answer as A, the second the contestant's."""

_UID = AliasChoices("uid", "question_id")


class _Text(Record):
    content: str


class _Question(Record):
    uid: Id = Field(validation_alias=_UID)
    prompt: str = Field("", min_length=1)
    turns: tuple[_Text, ...] = Field((), min_length=1, max_length=1)
    category: Label = ""
    subcategory: Label | None = None

    @property
    def text(self) -> str:
        return self.turns[0].content if self.turns else self.prompt

    @property
    def label(self) -> str:
        return self.category if self.subcategory is None else self.subcategory


class _Message(Record):
    role: str
    content: str

    @field_validator("content", mode="before")
    @classmethod
    def _answer(cls, value: Any) -> Any:
        return value.get("answer") if isinstance(value, Mapping) else value


class _Choice(Record):
    turns: tuple[_Text, ...] = Field(min_length=1, max_length=1)


class _Answer(Record):
    uid: Id = Field(validation_alias=_UID)
    model: Name = Field(validation_alias=AliasChoices("model", "model_id"))
    messages: tuple[_Message, ...] = Field((), min_length=2)
    choices: tuple[_Choice, ...] = Field((), min_length=1)

    @field_validator("messages")
    @classmethod
    def _one_turn(cls, value: tuple[_Message, ...]) -> tuple[_Message, ...]:
        if [m.role for m in value if m.role != "system"] != ["user", "assistant"]:
            raise ValueError("an answer has one message of the user and one of the assistant")
        return value

    @property
    def text(self) -> str:
        return self.choices[0].turns[0].content if self.choices else self.messages[-1].content


class _Game(Record):
    score: str | None = None
    judgment: str = ""
    user_prompt: str = ""
    asked: bool = True
    """Our own word: false of a game that was not played; null games were, and failed."""

    @field_validator("judgment", "user_prompt", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        said = value.get("answer") if isinstance(value, Mapping) else value
        return "" if said is None or isinstance(said, list) else said


class _Judgment(Record):
    uid: Id = Field(validation_alias=_UID)
    model: Name
    judge: Name
    baseline: Name | None = None
    category: Label = ""
    games: tuple[_Game | None, ...] = Field(min_length=1, max_length=2)


class _Read(NamedTuple):
    prompts: dict[str, Prompt]
    """By uid."""
    halves: dict[str, _Half]
    """By uid, where something tells."""
    answers: dict[str, dict[str, str]]
    """By model and uid."""
    judgments: dict[tuple[str, str, str, str], tuple[str, _Judgment]]
    """By judge, model, baseline and uid; the place first."""

    def half_of(self, uid: str, category: str) -> None:
        if half := _HALVES.get(category):
            self.halves[uid] = half


def _read(paths: Sequence[Path], told: Callable[[], None]) -> _Read:
    kinds: Mapping[str, type[Record]] = {
        "messages": _Answer,
        "choices": _Answer,
        "games": _Judgment,
        "prompt": _Question,
        "turns": _Question,
    }
    found = _Read({}, {}, defaultdict(dict), {})
    asked: dict[str, Prompt] = {}
    for place, record in records(paths, told, _WHAT, kinds):
        if isinstance(record, _Question):
            prompt = checked(Prompt(id=record.uid, turns=(record.text,), category=record.label), place)
            if found.prompts.setdefault(record.uid, prompt) != prompt:
                raise UserError(f"{place}: another question was called {record.uid} before")
            found.half_of(record.uid, record.category)
        elif isinstance(record, _Answer):
            if found.answers[record.model].setdefault(record.uid, record.text) != record.text:
                raise UserError(f"{place}: '{record.model}' answered {record.uid} otherwise before")
            if record.messages:
                prompt = checked(Prompt(id=record.uid, turns=(record.messages[-2].content,)), place)
                if asked.setdefault(record.uid, prompt) != prompt:
                    raise UserError(f"{place}: an answer to another text than before was given to {record.uid}")
        elif isinstance(record, _Judgment):
            found.half_of(record.uid, record.category)
            key = record.judge, record.model, record.baseline or "", record.uid
            if key in found.judgments:
                raise UserError(f"{place}: judged before, at {found.judgments[key][0]}")
            found.judgments[key] = place, record
    for uid, prompt in asked.items():
        if found.prompts.setdefault(uid, prompt).turns != prompt.turns:
            raise UserError(f"question {uid}: the answers are to another text than the questions' file has")
    for model, given in found.answers.items():
        if missing := next((uid for uid in given if uid not in found.prompts), None):
            raise UserError(f"'{model}' answered {missing}, which no question is called: name question.jsonl too")
    return found


def _parcel(found: _Read, wanted: Wanted, baseline: str) -> Parcel:
    """What concerns one board: of v2.0's halves, each against its own baseline, the one that is compared with it."""
    halves = {half for half in _HALVES.values() if half.baseline == baseline}
    answered = {uid for given in found.answers.values() for uid in given}
    prompts = {
        uid: prompt
        for uid, prompt in found.prompts.items()
        if uid in answered and (not halves or found.halves.get(uid) in (*halves, None))
    }
    tasks = {found.halves[uid].task for uid in prompts if uid in found.halves}
    if len(tasks) > 1 and not wanted.task:
        raise UserError(f"questions of {' and '.join(sorted(tasks))}: import them apart")
    name = wanted.task or next(iter(tasks), "arena_hard")
    responses = {
        model: {
            prompts[uid].key: Response(prompt=prompts[uid], replies=(Reply(text=text),))
            for uid, text in given.items()
            if uid in prompts
        }
        for model, given in found.answers.items()
    }
    task = Task(name=name, domain="out", split="heldout", prompts=tuple(prompts.values()))
    return Parcel(task, {model: given for model, given in responses.items() if given}, baseline)


def read_answers(paths: Sequence[Path], wanted: Wanted) -> Parcel:
    """Answers of any number of models, for the board against the baseline of these questions where they have one."""
    found = _read(paths, wanted.told)
    if not found.answers:
        raise nothing("answer", paths, _JUDGED if found.judgments else "")
    own = {found.halves[uid].baseline for given in found.answers.values() for uid in given if uid in found.halves}
    return _parcel(found, wanted, wanted.baseline or (own.pop() if len(own) == 1 else ""))


def read_judgments(paths: Sequence[Path], wanted: Wanted) -> Parcel:
    """Judgments, with the answer files of contestants and baseline among the files: judgments hold no texts.

    A verdict is read anew from the judge's words as Arena-Hard's code does. Where the two differ the stored one
    counts, and a remark tells it. Five levels are preferences 1, ¾, ½, ¼, 0: Arena-Hard itself counts the outer two
    thrice. Raises `UserError` where an answer is missing, or judgments name several baselines and nobody chose.
    """
    found = _read(paths, wanted.told)
    chosen: list[tuple[str, _Judgment]] = []
    against: set[str] = set()
    for place, record in found.judgments.values():
        half = found.halves.get(record.uid)
        name = record.baseline or (half.baseline if half else wanted.baseline) or ""
        if wanted.baseline in (None, name):
            chosen.append((place, record))
            against.add(name)
    if not chosen:
        said = f" against '{wanted.baseline}'" if wanted.baseline else ""
        raise nothing(f"judgment{said}", paths, _ANSWERED if found.answers and not found.judgments else "")
    if len(against) > 1 or "" in against:
        names = ", ".join(sorted(filter(None, against)))
        raise UserError(
            f"the judgments name {f'several baselines ({names})' if names else 'no baseline'}: choose with --baseline"
        )
    baseline = against.pop()
    parcel = _parcel(found, wanted, baseline)
    judged: dict[str, list[Judgment]] = defaultdict(list)
    other: list[str] = []
    for place, record in chosen:
        if record.model == baseline:
            raise UserError(f"{place}: '{baseline}' is compared with itself")
        prompt = found.prompts[record.uid].key if record.uid in found.prompts else ""
        for name in (record.model, baseline):
            if prompt not in parcel.responses.get(name, {}):
                raise UserError(f"{place}: no answer of '{name}' to {record.uid}; name its answer file too")
        for order, game in zip(_GAMES, record.games, strict=False):
            if game is None or game.asked:
                verdict, remark = _verdict(game, order, later=record.baseline is not None)
                judged[record.judge].append(Judgment(record.model, prompt, verdict, order))
                other += [f"{place}: {remark}"] if remark else []
    remarks = [
        f"{counted(len(other), 'verdicts')} read from the judge's words: not what is stored, which counts",
        *other,
    ]
    return parcel._replace(
        judged=[
            JudgedBy(name, "pairwise", {"imported": _JUDGED, "judge": name}, said) for name, said in judged.items()
        ],
        remarks=remarks if other else (),
    )


_LABELS = (re.compile(r"\[\[([AB<>=]++)\]\]"), re.compile(r"\[([AB<>=]++)\]"))


def _label(words: str, *, later: bool) -> str | None:
    """v0.1's code takes the one label that there is, v2.0's the last one, of single brackets where no double are."""
    if later:
        return next((found[-1] for pattern in _LABELS if (found := pattern.findall(words.upper()))), None)
    distinct = set(_LABELS[0].findall(words))
    return distinct.pop() if len(distinct) == 1 else None


def _verdict(game: _Game | None, order: Order, *, later: bool) -> tuple[Verdict, str]:
    """The verdict, seen from the contestant, and how the judge's words differ from the stored score, if they do."""
    if game is None:
        return Verdict(outcome=Outcome.unscored, reason="api error"), ""
    anew = _label(game.judgment, later=later)
    remark = ""
    if game.judgment and anew != game.score:
        remark = f"{game.score or 'nothing'} is stored, {anew or 'nothing'} follows from the judge's words"
    kept = {"raw": json.dumps(game.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False)}
    worth = _WORTH.get(game.score or "")
    if worth is None:
        return Verdict(outcome=Outcome.unscored, reason="unparsable", **kept), remark
    worth = worth if order == "ab" else 1 - worth
    return Verdict(outcome=Outcome.of(worth), preference=worth, **kept), remark


Files = Iterator[tuple[tuple[str, ...], list[dict[str, Any]]]]


def write_answers(parcel: Parcel) -> Files:
    """The questions, and one file of answers a model."""
    ids = parcel.ids
    questions = []
    for p in parcel.task.prompts:
        category = _category(parcel, p)
        apart = {} if category == p.category else {"subcategory": p.category}
        questions.append({"uid": ids[p.key], "category": category, **apart, "prompt": "\n\n".join(p.turns)})
    yield ("question.jsonl",), questions
    for model, given in parcel.responses.items():
        yield (
            ("model_answer", f"{model}.jsonl"),
            [_answer(ids[key], model, response) for key, response in given.items()],
        )


def _category(parcel: Parcel, prompt: Prompt) -> str:
    """Which half a question is of, as Arena-Hard calls it; a prompt's own category of any other task."""
    halves = [
        category
        for category, half in _HALVES.items()
        if half.task == parcel.task.name and parcel.baseline in ("", half.baseline)
    ]
    return prompt.category if prompt.category in halves or not halves else halves[0]


def _answer(uid: str, model: str, response: Response) -> dict[str, Any]:
    asked = {"role": "user", "content": "\n\n".join(response.prompt.turns)}
    said = {"role": "assistant", "content": {"answer": response.text}}
    return {"uid": uid, "model": model, "messages": [asked, said]}


def write_judgments(parcel: Parcel) -> Files:
    """Questions and answers, and one file of judgments a judge and contestant."""
    ids = parcel.ids
    pairwise = [judge for judge in parcel.judged if judge.kind == "pairwise"]
    if pairwise:
        yield from write_answers(parcel)
    for judge in pairwise:
        games: dict[str, dict[str, dict[Order, Any]]] = defaultdict(lambda: defaultdict(dict))
        for judgment in judge.judgments:
            if isinstance(judgment.said, Verdict):
                games[judgment.contestant][judgment.prompt][judgment.order] = _game(judge, judgment)
        for contestant, by_prompt in games.items():
            rows = []
            for prompt, played in by_prompt.items():
                category = _category(parcel, parcel.responses[contestant][prompt].prompt)
                who = {"uid": ids[prompt], "category": category, "judge": judge.name, "model": contestant}
                listed = [played.get(order, {"score": None, "judgment": "", "asked": False}) for order in _GAMES]
                rows.append({**who, "baseline": parcel.baseline, "games": listed})
            yield ("model_judgment", judge.name, f"{contestant}.jsonl"), rows


def _game(judge: JudgedBy, judgment: Judgment) -> dict[str, Any] | None:
    said, order = judgment.said, judgment.order
    assert isinstance(said, Verdict)
    if judge.identity.get("imported") == _JUDGED and (kept := _kept(said.raw)):
        return kept
    if said.worth is None:
        return None if said.reason == "api error" else {"score": None, "judgment": said.raw}
    shown = said.worth if order == "ab" else 1 - said.worth
    nearest = min(("A>>B", "A>B", "A=B", "B>A", "B>>A"), key=lambda label: abs(_WORTH[label] - shown))
    return {"score": nearest, "judgment": said.raw}


def _kept(raw: str) -> dict[str, Any] | None:
    """The game that `_verdict` kept; of any other judge its words are just words."""
    try:
        game = _Game.model_validate(json.loads(raw)).model_dump(mode="json", exclude_defaults=True)
    except (ValueError, RecursionError):
        return None
    return {"score": None, "judgment": "", **game}


ANSWERS = Format(
    "Arena-Hard: answers and questions (.jsonl)",
    read_answers,
    write_answers,
    {"messages": _Answer, "choices": _Answer},
)
JUDGMENTS = Format(
    "Arena-Hard: judgments of two games, with the answer files of contestants and baseline (.jsonl)",
    read_judgments,
    write_judgments,
    {"games": _Judgment},
)
