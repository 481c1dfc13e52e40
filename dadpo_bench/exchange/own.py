"""Our own JSON Lines: everything that a parcel holds, a line each, the task's prompts first.

`stored.gather` says what of a store a parcel does not carry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field

from dadpo_bench.counts import counted
from dadpo_bench.errors import UserError
from dadpo_bench.exchange.parcel import Format, JudgedBy, Judgment, Parcel, Wanted, Who
from dadpo_bench.exchange.reading import Id, Name, Record, records
from dadpo_bench.tasks import Task
from dadpo_bench.tasks.data_set import checked
from dadpo_bench.types import JsonObject, Order, Outcome, Prompt, Rating, Reply, Response, Verdict, content_key

_WHAT = "dadpo-bench's JSON Lines"
_MOST = 2**31
"""Beyond every count and score; databases keep no larger integers."""


_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
_ROUNDED = 1e-6
"""Between a rating and the mean of its turns."""


class _Strict(Record):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def _shown(settings: JsonObject) -> JsonObject:
    if any(isinstance(text, str) and not text.isprintable() for setting in settings.items() for text in setting):
        raise ValueError("boards show settings, so their names and texts are printable")
    return settings


class _Head(_Strict):
    task: Name
    domain: Literal["in", "out"] = "out"
    split: Annotated[str, Field(max_length=40)] = "heldout"
    baseline: Name | Literal[""] = ""
    """The contestant that verdicts compare with; empty where responses are only rated."""


class _Asked(_Strict):
    prompt: Prompt


class _Entrant(_Strict):
    entrant: Name
    """What the other lines call it."""
    name: Name
    """On boards; the seeds of one name and equal settings are one row."""
    trained: bool = False
    seed: Annotated[int, Field(ge=0, lt=_MOST)] | None = None
    settings: Annotated[JsonObject, AfterValidator(_shown)] = Field(default_factory=dict)
    kl: tuple[float, float] | None = None
    """From the teacher and to it, nats a token."""


class _Given(_Strict):
    contestant: Name
    id: Id
    """Of the prompt."""
    replies: tuple[Reply | str, ...]
    """One a turn; a reply may be its text alone."""


class _Judge(_Strict):
    judge: Name
    kind: Literal["pairwise", "pointwise"]
    proxy: bool = False
    identity: JsonObject = Field(default_factory=dict)


class _Said(_Strict):
    by: str
    """The judge's name."""
    of: str
    """The contestant's."""
    id: str
    order: Order = "ab"
    asked: Annotated[AwareDatetime, Field(gt=_EARLIEST, lt=_LATEST)] | None = None
    verdict: Verdict | None = None
    rating: Rating | None = None


_KINDS: Mapping[str, type[Record]] = {
    "task": _Head,
    "prompt": _Asked,
    "entrant": _Entrant,
    "replies": _Given,
    "judge": _Judge,
    "by": _Said,
}


def read(paths: Sequence[Path], wanted: Wanted) -> Parcel:
    """Lines of one task, in one file or several: prompts, answers and judges before what speaks of them.

    Raises `UserError` by file and line where one is malformed, repeated, or speaks of what no earlier line tells.
    """
    head: _Head | None = None
    prompts: dict[str, Prompt] = {}
    responses: dict[str, dict[str, Response]] = defaultdict(dict)
    judges: dict[str, tuple[_Judge, dict[tuple[str, str, Order], Judgment]]] = {}
    known: dict[str, Who] = {}
    for place, line in records(paths, wanted.told, _WHAT, _KINDS):
        if isinstance(line, _Head):
            if head not in (None, line):
                raise UserError(f"{place}: another task or baseline than before; import them apart")
            head = line
        elif isinstance(line, _Asked):
            if prompts.setdefault(line.prompt.id, checked(line.prompt, place)) != line.prompt:
                raise UserError(f"{place}: another prompt was called '{line.prompt.id}' before")
        elif isinstance(line, _Entrant):
            who = Who(line.name, line.trained, line.seed, line.settings, line.kl)
            if known.setdefault(line.entrant, who) != who:
                raise UserError(f"{place}: something else was said of '{line.entrant}' before")
        elif isinstance(line, _Given):
            response = _response(line, _known(prompts, "prompt", line.id, place), place)
            if responses[line.contestant].setdefault(response.prompt.key, response) != response:
                raise UserError(f"{place}: '{line.contestant}' answered '{line.id}' otherwise before")
        elif isinstance(line, _Judge):
            if judges.setdefault(line.judge, (line, {}))[0] != line:
                raise UserError(f"{place}: another judge was called '{line.judge}' before")
        elif head is None:
            raise UserError(f"{place}: a judgment before the line that names the task and its baseline")
        elif isinstance(line, _Said):
            judge, said = _known(judges, "judge", line.by, place)
            prompt = _known(prompts, "prompt", line.id, place)
            for name in (line.of, head.baseline) if judge.kind == "pairwise" else (line.of,):
                _known(responses.get(name, {}), f"answer of '{name}' to", prompt.key, place, line.id)
            judgment = _judgment(line, judge, prompt, place)
            if judge.kind == "pairwise" and line.of == head.baseline:
                raise UserError(f"{place}: '{line.of}' is compared with itself")
            if said.setdefault((line.of, line.id, line.order), judgment) != judgment:
                raise UserError(f"{place}: '{line.by}' said otherwise of it before")
    if head is None:
        raise UserError(f'{", ".join(map(str, paths))}: no line names the task ({{"task": "…", "baseline": "…"}})')
    task = Task(name=wanted.task or head.task, domain=head.domain, split=head.split, prompts=tuple(prompts.values()))
    parcel = Parcel(
        task,
        responses,
        head.baseline or wanted.baseline or "",
        [
            JudgedBy(
                judge.judge,
                judge.kind,
                judge.identity or {"imported": "jsonl", "judge": judge.judge},
                list(said.values()),
                judge.proxy,
            )
            for judge, said in judges.values()
        ],
        known=known,
    )
    _check_known(parcel)
    return parcel


def _check_known(parcel: Parcel) -> None:
    """Raises `UserError` where two contestants would be one, or the baseline is told apart by more than its name."""
    found: dict[str, str] = {}
    for one in dict.fromkeys((parcel.baseline, *parcel.responses)):
        who = parcel.who(one)
        if one == parcel.baseline and who != Who(one):
            raise UserError(f"'{one}' is the baseline, which has a name and nothing else")
        same = content_key(who.name) if who.name == parcel.baseline else content_key(*who[:3], dict(who.settings))
        if found.setdefault(same, one) != one:
            raise UserError(f"'{found[same]}' and '{one}' are one contestant: nothing tells them apart")


def _known(of: Mapping[str, Any], what: str, name: str, place: str, shown: str = "") -> Any:
    if name not in of:
        raise UserError(f"{place}: no earlier line tells of {what} '{shown or name}'")
    return of[name]


def _response(line: _Given, prompt: Prompt, place: str) -> Response:
    if len(line.replies) != len(prompt.turns):
        raise UserError(f"{place}: {counted(len(line.replies), 'answers')} to {counted(len(prompt.turns), 'turns')}")
    replies = tuple(Reply(text=r) if isinstance(r, str) else r for r in line.replies)
    return Response(prompt=prompt, replies=replies)


def _judgment(line: _Said, judge: _Judge, prompt: Prompt, place: str) -> Judgment:
    said = line.verdict if judge.kind == "pairwise" else line.rating
    if said is None:
        what = "verdict" if judge.kind == "pairwise" else "rating"
        raise UserError(f"{place}: judge '{judge.judge}' is {judge.kind}, so its lines have a {what}")
    counts = (said.tokens, said.answer_tokens)
    sizes = (said.seconds, *((said.value, *said.by_turn) if isinstance(said, Rating) else ()))
    if not all(0 <= count < _MOST for count in counts) or any(abs(size or 0) > _MOST for size in sizes):
        raise UserError(f"{place}: a number beyond what databases keep")
    if max(len(said.reason), len(said.resolved_model), len(said.fingerprint)) > 200:
        raise UserError(f"{place}: reason, resolved_model and fingerprint have at most 200 characters")
    if isinstance(said, Rating):
        _check_turns(said, prompt, place)
    elif said.preference is not None and said.outcome is not Outcome.of(said.preference):
        raise UserError(f"{place}: outcome {said.outcome} and preference {said.preference:g} contradict each other")
    return Judgment(line.of, prompt.key, said, line.order, line.asked and line.asked.astimezone(UTC))


def _check_turns(said: Rating, prompt: Prompt, place: str) -> None:
    """Raises `UserError` where the ratings of turns are not those of the prompt's, or contradict the whole."""
    if len(said.by_turn) not in (0, len(prompt.turns)):
        turns = counted(len(prompt.turns), "turns")
        raise UserError(f"{place}: by_turn has {counted(len(said.by_turn), 'ratings')}, the prompt {turns}")
    given = [turn for turn in said.by_turn if turn is not None]
    mean = fmean(given) if given and len(given) == len(said.by_turn) else None
    if said.by_turn and ((said.value is None) != (mean is None) or abs((said.value or 0) - (mean or 0)) > _ROUNDED):
        raise UserError(f"{place}: value {said.value} is not the mean of by_turn (null where a turn has none)")


def write(parcel: Parcel) -> Iterator[tuple[tuple[str, ...], list[dict[str, Any]]]]:
    """One file, named after the task."""
    task, ids = parcel.task, parcel.ids
    lines: list[dict[str, Any]] = [
        {"task": task.name, "domain": task.domain, "split": task.split, "baseline": parcel.baseline}
    ]
    lines += [{"prompt": {**p.model_dump(mode="json", exclude_defaults=True), "id": ids[p.key]}} for p in task.prompts]
    for name, given in parcel.responses.items():
        if (who := parcel.who(name)) != Who(name):
            lines.append(
                _Entrant.model_construct(entrant=name, **who._asdict()).model_dump(mode="json", exclude_defaults=True)
            )
        lines += [
            {
                "contestant": name,
                "id": ids[key],
                "replies": [reply.model_dump(mode="json", exclude_defaults=True) for reply in response.replies],
            }
            for key, response in given.items()
        ]
    for judge in parcel.judged:
        proxy = {"proxy": True} if judge.proxy else {}
        lines.append({"judge": judge.name, "kind": judge.kind, **proxy, "identity": dict(judge.identity)})
        for judgment in judge.judgments:
            kind = "verdict" if isinstance(judgment.said, Verdict) else "rating"
            said = {kind: judgment.said.model_dump(mode="json", exclude_defaults=True)}
            order = {"order": judgment.order} if kind == "verdict" else {}
            asked = {"asked": judgment.asked.isoformat()} if judgment.asked else {}
            who_what = {"by": judge.name, "of": judgment.contestant, "id": ids[judgment.prompt]}
            lines.append({**who_what, **order, **asked, **said})
    yield (f"{task.name}.jsonl",), lines


JSONL = Format("our own lines of one task: answers, seeds, settings, KL and judgments (.jsonl)", read, write, _KINDS)
