"""What `eval` does: models as they are answer a task, a judge judges them, and an open board ranks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from dadpo_bench import registry
from dadpo_bench.counts import counted
from dadpo_bench.errors import UserError
from dadpo_bench.exchange.stored import asked_on, scorers, settled
from dadpo_bench.judging.asked import accord_of_members
from dadpo_bench.judging.comparisons import (
    Match,
    OpenJudge,
    Orders,
    ask,
    check_judge,
    note_judge,
    tell_unscored,
)
from dadpo_bench.leaderboard import write_board
from dadpo_bench.models.embedded import NAME
from dadpo_bench.open_board import open_protocol
from dadpo_bench.panels import BASELINES
from dadpo_bench.progress import Owed
from dadpo_bench.registry import JudgeEntry
from dadpo_bench.scores import save_scores
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.contenders import Contender, Given, Model, given
from dadpo_bench.stages.drawing import Drawing, temperatures_of
from dadpo_bench.stages.endpoint_responses import remote_model
from dadpo_bench.stages.responses import Stored
from dadpo_bench.store import Store, insert_missing, schema
from dadpo_bench.tasks import Task, load_task, task_data
from dadpo_bench.types import JsonObject, Reply, Response, Sampling


class Request(NamedTuple):
    """What a person asks for."""

    models: Sequence[str]
    task: str
    judge: str
    judge_settings: JsonObject
    orders: Orders = "both"
    baseline: str | None = None
    """A model or contestant; None for the task's own, where the judge needs one."""
    data: str | None = None
    prompts: int | None = None
    """Only the first so many."""
    sampling: Sampling = Sampling(temperature=0.0)
    temperature: float | None = None
    """None: by category as the task's authors have it, else greedy."""
    seed: int | None = None
    endpoint: JsonObject | None = None
    """Settings of the endpoint that answers for models which are none on disk; None where there is none."""


@dataclass(frozen=True)
class Evaluation:
    """What was asked for, checked before any work."""

    request: Request
    task: Task
    part: str
    """How much of the task is asked; empty for the whole."""
    entrants: tuple[Contender, ...]
    baseline: Contender | None

    @property
    def contenders(self) -> list[Contender]:
        """Everybody, the baseline first."""
        return [*([self.baseline] if self.baseline else []), *self.entrants]


def make_evaluation(request: Request, store: Store | None, *, asking: bool = True) -> Evaluation:
    """Check everything a user may have got wrong. Raises `UserError`; loads no weights.

    `store` knows who was imported; None where there is none yet. Not `asking`: no key is needed, no model is fetched.
    """
    entry, _ = check_judge(request.judge, request.judge_settings)
    task = load_task(request.task, "heldout", request.prompts, data=request.data)
    known = {}
    if store is not None:
        with store.read() as session:
            known = given(session, task)
    own = temperatures_of(request.task) if request.temperature is None else {}
    temperature = request.temperature or 0.0
    sampling = request.sampling.model_copy(update={"temperature": temperature})
    drawing = Drawing(sampling, own, request.seed)

    baseline = None
    if request.baseline:
        # Drawn once: contestants of all seeds meet the same answers, and so share a row.
        once = replace(drawing, seed=None if request.seed is None else 0)
        baseline = _contender(request.baseline, known, once, request, asking)
    elif entry.kind == "pairwise" or entry.proxy:
        baseline = _own_baseline(request, task, known)
    names = dict.fromkeys(name for name in request.models if name != request.baseline)
    entrants = tuple(_contender(name, known, drawing, request, asking) for name in names)
    if isinstance(baseline, Given):
        entrants = tuple(e for e in entrants if not (isinstance(e, Given) and e.name == baseline.name))
    if not entrants:
        raise UserError("the baseline meets nobody: name another model beside it")
    whole = task if request.prompts is None else load_task(request.task, "heldout", data=request.data)
    part = "" if len(task.prompts) == len(whole.prompts) else f"first {counted(len(task.prompts), 'prompts')}"
    made = Evaluation(request, task, part, entrants, baseline)
    for model in made.contenders:
        if asking and isinstance(model, Model):
            model.check()
    return made


def _contender(name: str, known: Mapping[str, Given], drawing: Drawing, request: Request, asking: bool) -> Contender:
    """Who is meant: a contestant that was imported, else a model on disk, at the endpoint, or of the hub."""
    if name in known:
        return known[name]
    on_disk = name == NAME or Path(name).expanduser().is_dir()
    if request.endpoint is not None and not on_disk:
        own = {"max_tokens": drawing.sampling.max_new_tokens, "top_p": drawing.sampling.top_p, "seed": drawing.seed}
        return Model(name, drawing, remote_model({**own, **request.endpoint, "model": name}, key=asking))
    if not on_disk and "/" not in name:
        wrong = registry.unknown("model", name, [NAME, *sorted(known)])
        raise UserError(f"{wrong} (or name a directory or a Hugging Face id; one behind an endpoint by --base-url)")
    return Model(name, drawing)


def _own_baseline(request: Request, task: Task, known: Mapping[str, Given]) -> Contender:
    """The task's own baseline: answers that its files carry, or that were imported. Raises `UserError` without one."""
    data = task_data(request.task, "heldout", request.data)
    answers = data.baseline or {}
    replies = {p: answers[p.id] for p in task.prompts if p.id in answers}
    name = data.baseline_name
    if request.task in registry.tasks.names():
        name = name or registry.tasks[request.task].baseline
    if replies and len(replies) == len(task.prompts):
        responses = {
            p.key: Response(prompt=p, replies=tuple(Reply(text=text) for text in texts)) for p, texts in replies.items()
        }
        return Given(name, responses)
    if name in known:
        return known[name]
    single = "or take a judge that rates single answers (--judge chat-score:MODEL)"
    if not name:
        raise UserError(
            f"task '{task.name}' has no baseline of its own, and judge '{request.judge}' compares two responses: "
            f"name one by --baseline MODEL, {single}"
        )
    raise UserError(
        f"task '{task.name}': the answers of its baseline {name} are not at hand ({len(replies)} of "
        f"{len(task.prompts)} in its files): put them beside its prompts (--data), import them (`dadpo-bench import`), "
        f"name another by --baseline MODEL, {single}"
    )


class Asked(NamedTuple):
    """What came of it."""

    protocol_key: str
    judge: OpenJudge


def evaluate(bench: Bench, evaluation: Evaluation, judge: tuple[JudgeEntry, Any]) -> Asked:
    """Do what is owed: responses, judgments, scores, the board. Interrupted anywhere, the same call goes on."""
    asked = note_judge(bench, evaluation.request.judge, *judge)
    evaluation, protocol_key = _on_board(bench, evaluation)
    answered = [_entered(bench, evaluation, protocol_key, contender) for contender in evaluation.contenders]
    matches = _matches(evaluation, answered)
    if not matches:
        raise UserError("no prompt has an answer of both sides: there is nothing to judge")
    tell_unscored(bench, ask(bench, asked, matches, f"judge {asked.name}", evaluation.request.orders))
    if accord := accord_of_members(bench, asked, matches):
        bench.reporter.say(f"  members agree: {accord}")
    with bench.store.read() as session:
        before = [judge.key for judge in session.scalars(scorers(protocol_key))]
    for key in dict.fromkeys([*before, asked.key]):  # the prompts may be known better now
        save_scores(bench.store, protocol_key, key)
    write_board(bench.store)
    return Asked(protocol_key, asked)


def _on_board(bench: Bench, evaluation: Evaluation) -> tuple[Evaluation, str]:
    """The evaluation with the prompts as its board knows them, and the board's protocol.

    It is the board of what was imported, where that answers no prompt which the task does not have.
    """
    task, baseline = evaluation.task, evaluation.baseline
    parts = [evaluation.part, f"baseline: {baseline.variant}" if baseline and baseline.variant else ""]
    name = baseline.name if baseline else ""
    protocol = open_protocol(task.name, name, "; ".join(filter(None, parts)))
    with bench.store.write() as session:
        if not asked_on(session, protocol["key"]) <= {p.asks for p in task.prompts}:
            parts.append(f"prompts {task.key[:8]}")
            protocol = open_protocol(task.name, name, "; ".join(filter(None, parts)))
        insert_missing(session, schema.Protocol, [protocol])
        task, prompts = settled(session, protocol["key"], task)

    def placed(contender: Contender) -> Contender:
        return contender.asked(prompts) if isinstance(contender, Given) else contender

    entrants = tuple(map(placed, evaluation.entrants))
    key: str = protocol["key"]
    return replace(evaluation, task=task, entrants=entrants, baseline=baseline and placed(baseline)), key


def _entered(bench: Bench, evaluation: Evaluation, protocol_key: str, contender: Contender) -> dict[str, Stored]:
    kind = BASELINES[-1] if contender is evaluation.baseline else "entrant"
    say, whole = bench.reporter.say, len(evaluation.task.prompts)
    if isinstance(contender, Model) and contender.remote is not None:
        say(f"  {contender.name}: known by its name at {contender.remote.host}; which weights answer is not verified")
    found = contender.enter(bench, protocol_key, evaluation.task, kind)
    if isinstance(contender, Given):
        say(f"  {contender.name}: {counted(len(found), 'responses')} as they were given, of {whole}")
    return found


def _matches(evaluation: Evaluation, answered: Sequence[Mapping[str, Stored]]) -> list[Match]:
    """On prompts that both sides answered; without a baseline a response stands on both sides, to be rated once."""
    baseline, entrants = (answered[0], answered[1:]) if evaluation.baseline else (None, answered)
    matches: list[Match] = []
    for ours in entrants:
        theirs = ours if baseline is None else baseline
        matches += [(ours[p.key], theirs[p.key]) for p in evaluation.task.prompts if p.key in ours and p.key in theirs]
    return matches


def owed(bench: Bench, evaluation: Evaluation, judge: tuple[JudgeEntry, Any] | None) -> list[str]:
    """A line on each who owes something. `bench` has a reporter whose bars raise `Owed`, and a copy of the store.

    `judge` is None where it cannot be opened, e.g. without its key.
    """
    absent = [c for c in evaluation.contenders if isinstance(c, Model) and not c.at_hand]
    if absent:
        names = ", ".join(contender.name for contender in absent)
        return [f"owed: {names} is not fetched yet, so what it answered before is not known"]
    evaluation, protocol_key = _on_board(bench, evaluation)
    lines: list[str] = []
    answered: list[Mapping[str, Stored]] = []
    for contender in evaluation.contenders:
        try:
            answered.append(_entered(bench, evaluation, protocol_key, contender))
        except Owed as work:
            lines.append(f"owed: {work}")
    if lines or judge is None:
        return [*lines, f"owed: what judge {evaluation.request.judge} says of them"]
    try:
        ask(
            bench,
            note_judge(bench, evaluation.request.judge, *judge),
            _matches(evaluation, answered),
            f"judge {evaluation.request.judge}",
            evaluation.request.orders,
        )
    except Owed as work:
        return [f"owed: {work}"]
    return []
