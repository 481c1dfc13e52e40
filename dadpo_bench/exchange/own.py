"""Our own JSON Lines: everything that a parcel holds, a line each, the task's prompts first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from dadpo_bench.errors import UserError
from dadpo_bench.exchange.parcel import Format, JudgedBy, Judgment, Parcel, Wanted
from dadpo_bench.exchange.reading import Record, records
from dadpo_bench.tasks import Task
from dadpo_bench.types import JsonObject, Order, Prompt, Rating, Reply, Response, Verdict

_WHAT = "dadpo-bench's JSON Lines"


class _Strict(Record):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Head(_Strict):
    task: str = Field(min_length=1)
    domain: Literal["in", "out"] = "out"
    split: str = "heldout"
    baseline: str = ""
    """The contestant that verdicts compare with; empty where responses are only rated."""


class _Asked(_Strict):
    prompt: Prompt


class _Given(_Strict):
    contestant: str = Field(min_length=1)
    id: str
    """Of the prompt."""
    replies: tuple[Reply | str, ...]
    """One a turn; a reply may be its text alone."""


class _Judge(_Strict):
    judge: str = Field(min_length=1)
    kind: Literal["pairwise", "pointwise"]
    identity: JsonObject = Field(default_factory=dict)


class _Said(_Strict):
    by: str
    """The judge's name."""
    of: str
    """The contestant's."""
    id: str
    order: Order = "ab"
    verdict: Verdict | None = None
    rating: Rating | None = None


_KINDS: Mapping[str, type[Record]] = {
    "task": _Head,
    "prompt": _Asked,
    "replies": _Given,
    "judge": _Judge,
    "by": _Said,
}


def read(paths: Sequence[Path], wanted: Wanted) -> Parcel:
    """Lines of one task, in one file or several: prompts and judges before what speaks of them."""
    head: _Head | None = None
    prompts: dict[str, Prompt] = {p.id: p for p in wanted.prompts}
    responses: dict[str, dict[str, Response]] = defaultdict(dict)
    judges: dict[str, tuple[_Judge, list[Judgment]]] = {}
    for place, line in records(paths, _WHAT, _KINDS):
        try:
            if isinstance(line, _Head):
                if head not in (None, line):
                    raise UserError(f"{place}: another task or baseline than before; import them apart")
                head = line
            elif isinstance(line, _Asked):
                if prompts.setdefault(line.prompt.id, line.prompt) != line.prompt:
                    raise UserError(f"{place}: another prompt was called '{line.prompt.id}' before")
            elif isinstance(line, _Given):
                replies = tuple(Reply(text=r) if isinstance(r, str) else r for r in line.replies)
                prompt = prompts[line.id]
                if len(replies) != len(prompt.turns):
                    raise UserError(f"{place}: {len(replies)} replies to {len(prompt.turns)} turns")
                responses[line.contestant][prompt.key] = Response(prompt=prompt, replies=replies)
            elif isinstance(line, _Judge):
                judges.setdefault(line.judge, (line, []))
            elif isinstance(line, _Said):
                judges[line.by][1].append(_judgment(line, judges[line.by][0], prompts[line.id], place))
        except KeyError as error:
            raise UserError(f"{place}: speaks of {error.args[0]!r}, of which no earlier line tells") from error
    if head is None and wanted.task is None:
        raise UserError(f'{paths[0]}: no line names the task ({{"task": "…", "baseline": "…"}}); or say --task')
    head = head or _Head(task=wanted.task or "")
    for judge, said in judges.values():
        for judgment in said:
            for name in (judgment.contestant, head.baseline) if judge.kind == "pairwise" else (judgment.contestant,):
                if judgment.prompt not in responses.get(name, {}):
                    raise UserError(f"judge '{judge.judge}' speaks of an answer of '{name}' that no line gives")
    task = Task(name=wanted.task or head.task, domain=head.domain, split=head.split, prompts=tuple(prompts.values()))
    return Parcel(
        task,
        responses,
        head.baseline,
        [
            JudgedBy(judge.judge, judge.kind, judge.identity or {"imported": "jsonl", "judge": judge.judge}, said)
            for judge, said in judges.values()
        ],
    )


def _judgment(line: _Said, judge: _Judge, prompt: Prompt, place: str) -> Judgment:
    said = line.verdict if judge.kind == "pairwise" else line.rating
    if said is None:
        what = "verdict" if judge.kind == "pairwise" else "rating"
        raise UserError(f"{place}: judge '{judge.judge}' is {judge.kind}, so its lines have a {what}")
    return Judgment(line.of, prompt.key, said, line.order)


def write(parcel: Parcel) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """One file, named after the task."""
    task = parcel.task
    ids = _ids(task)
    lines: list[dict[str, Any]] = [
        {"task": task.name, "domain": task.domain, "split": task.split, "baseline": parcel.baseline}
    ]
    lines += [{"prompt": {**p.model_dump(mode="json", exclude_defaults=True), "id": ids[p.key]}} for p in task.prompts]
    for name, given in parcel.responses.items():
        lines += [
            {
                "contestant": name,
                "id": ids[key],
                "replies": [reply.model_dump(mode="json", exclude_defaults=True) for reply in response.replies],
            }
            for key, response in given.items()
        ]
    for judge in parcel.judged:
        lines.append({"judge": judge.name, "kind": judge.kind, "identity": dict(judge.identity)})
        for judgment in judge.judgments:
            kind = "verdict" if isinstance(judgment.said, Verdict) else "rating"
            said = {kind: judgment.said.model_dump(mode="json", exclude_defaults=True)}
            order = {"order": judgment.order} if kind == "verdict" else {}
            lines.append({"by": judge.name, "of": judgment.contestant, "id": ids[judgment.prompt], **order, **said})
    yield f"{task.name}.jsonl", lines


def _ids(task: Task) -> dict[str, str]:
    """By prompt's key: its id where no other prompt has that, else its key."""
    ids = [p.id for p in task.prompts]
    return {p.key: p.id if p.id and ids.count(p.id) == 1 else p.key for p in task.prompts}


JSONL = Format("everything that a store holds of one task, our own lines (.jsonl)", read, write)
