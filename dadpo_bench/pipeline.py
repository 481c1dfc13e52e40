"""The stages of `run`, in order. Every one can be interrupted and repeated: it does only what is owed."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeGuard

from sqlalchemy.orm import Session

from dadpo_bench.engine import side_by_side
from dadpo_bench.environment import environment
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.judging.asked import accord_of_members
from dadpo_bench.judging.comparisons import (
    Match,
    OpenJudge,
    ask,
    construct_judge,
    note_judge,
    tell_unscored,
)
from dadpo_bench.leaderboard import write_board
from dadpo_bench.models import chat_tokenizer, training
from dadpo_bench.models.memory import peak_bytes
from dadpo_bench.plan import SHARED_SEED, TRAIN, VALIDATION, Plan
from dadpo_bench.progress import Owed
from dadpo_bench.recipe import FIRST
from dadpo_bench.registry import JudgeEntry
from dadpo_bench.scores import save_scores
from dadpo_bench.stages import Stage
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.cards import write_cards
from dadpo_bench.stages.contestants import answer, answers, enter, enter_canaries
from dadpo_bench.stages.divergences import divergences
from dadpo_bench.stages.drawing import Drawing, draw_all
from dadpo_bench.stages.responses import Request, collect_all_responses
from dadpo_bench.stages.served import ServedModel, collect_served_responses
from dadpo_bench.stages.signals import Scored, Scoring, collect_all_signals
from dadpo_bench.stages.students import student_of, train
from dadpo_bench.stages.teachers import (
    AnyTeacher,
    check_own_responses,
    judge_context,
    same_tokenizer,
    teacher_of,
    teacher_responses,
    teacher_signals,
)
from dadpo_bench.store import insert_missing, save_task, schema
from dadpo_bench.tasks import Task
from dadpo_bench.types import Example, Pair
from dadpo_bench.watching import watched

TEACHER, STUDENT = "teacher", "student"


@dataclass
class _Run:
    """State handed from stage to stage."""

    bench: Bench
    plan: Plan
    id: int | None = None
    """Of the stored run, where there is one."""
    teacher: AnyTeacher = field(init=False)
    student: LocalModel = field(init=False)
    sampled: bool = field(init=False)
    """Whether student and teacher share a tokenizer, so that sampled ids train as they are."""
    taught: dict[str, list[Example]] = field(default_factory=dict)
    """By split: the teacher's responses."""
    models: dict[tuple[str, int], LocalModel] = field(default_factory=dict)
    pairs: dict[tuple[int, str], list[Example]] = field(default_factory=dict)
    """By seed and split: both responses, and the signals once they are scored."""

    @cached_property
    def judge(self) -> OpenJudge:
        """Opened when first asked for. Raises `UserError` where it cannot be, e.g. without an API key."""
        return note_judge(self.bench, self.plan.recipe.judge, *judge_of(self.plan))

    def keep_parity(self, figures: Sequence[Mapping[str, Any]]) -> None:
        """Keep with the run what the parity gate found of a served teacher."""
        if self.id is not None:
            with self.bench.store.write() as session:
                row = session.get_one(schema.Run, self.id)
                row.environment = {**row.environment, "parity": [*row.environment.get("parity", []), *figures]}


def run(bench: Bench, plan: Plan, arguments: Mapping[str, Any], until: Stage = Stage.score) -> OpenJudge:
    """Do what is owed of every stage up to `until`; returns the judge."""
    recipe = plan.recipe
    with bench.store.write() as session:
        _note_plan(session, plan)
        row = schema.Run(
            protocol_key=plan.protocol_key,
            started=datetime.now(UTC),
            arguments=dict(arguments),
            recipe=recipe.model_dump(mode="json"),
            environment=environment(),
        )
        session.add(row)
        session.flush()
        run_id = row.id
    state = _Run(bench, plan, run_id)
    _ = state.judge  # one that cannot be opened is told before any work
    stages = list(Stage)[: list(Stage).index(until) + 1]
    with watched(bench.store, run_id, bench.reporter, stages) as watch:
        for position, stage in enumerate(stages):
            watch.enter(stage)
            with _timed(bench, run_id, position, stage):
                _STAGES[stage](state)
    with bench.store.write() as session:
        finished = session.get_one(schema.Run, run_id)
        finished.finished = datetime.now(UTC)
    return state.judge


def _note_plan(session: Session, plan: Plan) -> None:
    recipe = plan.recipe
    protocol = {"key": plan.protocol_key, "name": recipe.name, "settings": recipe.protocol()}
    insert_missing(session, schema.Protocol, [protocol])
    for task in (*plan.learning.values(), *plan.tasks):
        save_task(session, task)


def done_stages(bench: Bench, plan: Plan) -> list[Stage]:
    """Stages of which nothing is owed, as far as they can be known without doing the first that owes.

    `bench` has a reporter whose bars raise `Owed`, and a store that may be written: a copy.
    """
    with bench.store.write() as session:
        _note_plan(session, plan)
    state = _Run(bench, plan)
    done: list[Stage] = []
    for stage, work in _STAGES.items():
        if stage is Stage.score:  # it owes nothing, and writes beside the store
            break
        try:
            work(state)
        except (Owed, UserError, WorkError):  # a judge without its key may be planned, not asked
            break
        done.append(stage)
    return done


def judge_of(plan: Plan) -> tuple[JudgeEntry, Any]:
    """The plan's judge, not yet asked. Raises `UserError` where it cannot be, e.g. without an API key."""
    recipe = plan.recipe
    return construct_judge(recipe.judge, recipe.judge_settings, judge_context(recipe.teacher))


@contextmanager
def _timed(bench: Bench, run_id: int, position: int, stage: Stage) -> Iterator[None]:
    bench.reporter.say(f"{stage}")
    began = time.monotonic()
    yield
    row = schema.StageTime(
        run_id=run_id,
        position=position,
        stage=str(stage),
        seconds=time.monotonic() - began,
        peak_bytes=peak_bytes(),
    )
    with bench.store.write() as session:
        session.add(row)


def _models(run: _Run) -> None:
    bench, recipe = run.bench, run.plan.recipe
    run.teacher = teacher_of(bench, recipe)
    run.student = student_of(bench, recipe, run.plan.train_task.prompts)
    run.sampled = same_tokenizer(run.teacher, run.student)
    if not run.sampled:
        for contestant, entry in run.plan.entries.items():
            if "teacher_logits" in entry.signals:
                raise UserError(
                    f"{contestant} compares student and teacher token by token, but their tokenizers differ; "
                    "leave it out (dadpo does not need equal tokenizers)"
                )
        bench.reporter.say("  tokenizers differ: responses are encoded anew for each model")


def _teacher_responses(run: _Run) -> None:
    drawing = Drawing(run.plan.recipe.teacher_sampling, {}, SHARED_SEED)
    wanted = {_of(split): task.prompts for split, task in run.plan.learning.items()}
    given = teacher_responses(run.bench, run.teacher, wanted, drawing)
    for split, responses in zip(run.plan.learning, given, strict=True):
        run.taught[split] = [Example(prompt=s.response.prompt, chosen=s.response.replies[0]) for s in responses]


def _of(split: str) -> str:
    return "" if split == TRAIN else f", {split}"


def _trained(run: _Run, name: str, seed: int, start: LocalModel, data: Mapping[str, Sequence[Example]]) -> LocalModel:
    settings, examples = run.plan.recipe.method_settings(name), data[TRAIN]

    def before() -> None:
        # Everything learns from the teacher's responses, and dSFT comes first.
        if name == FIRST:
            check_own_responses(run.bench, run.teacher, examples, sampled=run.sampled)

    return train(
        run.bench,
        name,
        settings,
        start,
        run.teacher if isinstance(run.teacher, LocalModel) else None,
        examples,
        seed,
        validation=data.get(VALIDATION, ()),
        sampled=run.sampled,
        before=before,
    )


def _dsft(run: _Run) -> None:
    made = _together(run, [partial(_trained, run, FIRST, seed, run.student, run.taught) for seed in run.plan.seeds])
    run.models |= {(FIRST, seed): model for seed, model in zip(run.plan.seeds, made, strict=True)}


def _together(run: _Run, trainings: Sequence[Callable[[], LocalModel]]) -> list[LocalModel]:
    return side_by_side(trainings, run.bench.engine, run.bench.stopping)


def _student_responses(run: _Run) -> None:
    if not run.plan.on_pairs:
        return
    places = list(itertools.product(run.plan.seeds, run.plan.learning))
    requests = [
        Request(run.models[FIRST, seed], run.plan.learning[split].prompts, run.plan.recipe.student_sampling, seed)
        for seed, split in places
    ]
    found = collect_all_responses(run.bench, requests, "dSFT students' responses")
    for (seed, split), own in zip(places, found, strict=True):
        run.pairs[seed, split] = [
            lesson.model_copy(update={"rejected": s.response.replies[0]})
            for lesson, s in zip(run.taught[split], own, strict=True)
        ]


def _signals(run: _Run) -> None:
    readers = [name for name, entry in run.plan.entries.items() if entry.data == "pairs" and entry.signals]
    needed = {signal for name in readers for signal in run.plan.entries[name].signals}
    # What is longer every method leaves out, so nobody would read its signals.
    longest = max((run.plan.recipe.method_settings(name).get("max_tokens", math.inf) for name in readers), default=0)
    scored = {place: _scorable(run, place, longest) for place in run.pairs}
    pairs = {place: list(some.values()) for place, some in scored.items()}
    found: dict[str, list[list[Pair]]] = {}
    if "reference" in needed:
        scorings = [Scoring(run.models[FIRST, seed], some, training()) for (seed, _), some in pairs.items()]
        found["reference"] = collect_all_signals(run.bench, scorings, sampled=run.sampled, label="reference signals")
    if "teacher" in needed:
        labelled = {f"seed {seed}{_of(split)}": some for (seed, split), some in pairs.items()}
        found["teacher"] = teacher_signals(run.bench, run.teacher, labelled, sampled=run.sampled, found=run.keep_parity)
    for at, (place, examples) in enumerate(run.pairs.items()):
        by_name = {name: dict(zip(scored[place], signals[at], strict=True)) for name, signals in found.items()}
        run.pairs[place] = [
            e.model_copy(update={"signals": {name: given[i] for name, given in by_name.items() if i in given}})
            for i, e in enumerate(examples)
        ]


def _scorable(run: _Run, place: tuple[int, str], longest: float) -> dict[int, Scored]:
    """By position: the pairs of a seed and a split that are not too long."""
    student = run.models[FIRST, place[0]]
    tokenizer = chat_tokenizer(str(student.directory), student.chat_template)
    return {
        i: Scored(e.prompt, e.chosen, e.rejected)
        for i, e in enumerate(run.pairs[place])
        if e.rejected is not None
        and tokenizer.branching(e.prompt, [e.chosen, e.rejected], sampled=run.sampled).tokens <= longest
    }


def _train(run: _Run) -> None:
    chosen = [(name, seed) for seed in run.plan.seeds for name in run.plan.entries]
    made = _together(run, [partial(_trained_of, run, name, seed) for name, seed in chosen])
    run.models |= dict(zip(chosen, made, strict=True))


def _trained_of(run: _Run, name: str, seed: int) -> LocalModel:
    entry = run.plan.entries[name]
    start = run.models[FIRST, seed] if entry.start == "dsft" else run.student
    data: Mapping[str, Sequence[Example]] = run.taught
    if entry.data == "pairs":
        data = {
            split: [
                e.model_copy(update={"signals": {s: v for s, v in e.signals.items() if s in entry.signals}})
                for e in run.pairs[seed, split]
            ]
            for split in run.plan.learning
        }
    return _trained(run, name, seed, start, data)


class _Entrant(NamedTuple):
    name: str
    kind: str
    seed: int | None
    settings: Mapping[str, Any]
    model: AnyTeacher


def _entrants(run: _Run) -> Iterator[_Entrant]:
    """Everybody who answers held-out prompts."""
    yield _Entrant(TEACHER, TEACHER, None, {}, run.teacher)
    yield _Entrant(STUDENT, STUDENT, None, {}, run.student)
    for (name, seed), model in run.models.items():
        yield _Entrant(name, "method", seed, run.plan.recipe.method_settings(name), model)


def _responses(run: _Run) -> None:
    """All that is owed is sampled in one go, and so is the KL; then everybody is entered with what they answered."""
    bench, keys = run.bench, _keys(run)
    places = [(who, task) for who in _entrants(run) for task in run.plan.tasks]
    here = [(who.model, task.prompts, run.plan.drawing(task)) for who, task in places if _is_local(who.model)]
    drawn = iter(draw_all(bench, here, f"answers of {len(keys)} models"))
    for who, task in places:
        drawing, label = run.plan.drawing(task), f"{who.name}: {task.name}"
        served = who.model if isinstance(who.model, ServedModel) else None
        given = collect_served_responses(bench, served, task.prompts, drawing, label) if served else next(drawn)
        answer(bench, keys[who.name, who.seed], task, given.places)
    _divergences(run, [(who, task) for who, task in places if who.kind != TEACHER])


def _is_local(model: AnyTeacher) -> TypeGuard[LocalModel]:
    return isinstance(model, LocalModel)


def _divergences(run: _Run, places: Sequence[tuple[_Entrant, Task]]) -> None:
    evaluation, teacher = run.plan.recipe.evaluation, run.teacher
    if not evaluation.kl_prompts:
        return
    if not _is_local(teacher):
        run.bench.reporter.say("  no KL columns: an endpoint gives no distribution over the vocabulary")
        return
    wanted = [(who.model, task.prompts[: evaluation.kl_prompts]) for who, task in places if _is_local(who.model)]
    found = divergences(run.bench, wanted, teacher, evaluation.sampling.max_new_tokens)
    keys = _keys(run)
    with run.bench.store.write() as session:
        for (who, task), kl in zip(places, found, strict=True):
            if kl is not None:
                place = {"contestant_key": keys[who.name, who.seed], "task_key": task.key}
                session.merge(schema.ContestantDivergence(**place, **asdict(kl)))


def _keys(run: _Run) -> dict[tuple[str, int | None], str]:
    return {
        (name, seed): enter(run.bench, run.plan.protocol_key, name, kind, seed, settings, model.key)
        for name, kind, seed, settings, model in _entrants(run)
    }


def _judge(run: _Run) -> None:
    bench, recipe = run.bench, run.plan.recipe
    keys = _keys(run)
    matches: list[Match] = []
    for task in run.plan.tasks:
        given = {who: answers(bench, key, task) for who, key in keys.items()}
        baseline = given[TEACHER, None]
        for who, responses in given.items():
            if who[0] != TEACHER:
                matches += [(responses[p.key], baseline[p.key]) for p in task.prompts]
    contestants = list(matches)
    first, seed = run.plan.tasks[0], run.plan.seeds[0]
    few = first.prompts[: recipe.evaluation.canary_prompts]
    theirs, ours = (answers(bench, keys[who], first) for who in ((TEACHER, None), (FIRST, seed)))
    canaries = enter_canaries(
        bench, run.plan.protocol_key, first, [theirs[p.key] for p in few], [ours[p.key] for p in few], seed
    )
    for made in canaries.values():
        matches += [(s, ours[s.response.prompt.key]) for s in made]
    tell_unscored(bench, ask(bench, run.judge, matches, f"judge {run.judge.name}", recipe.orders))
    if accord := accord_of_members(bench, run.judge, contestants):
        bench.reporter.say(f"  members agree: {accord}")


def _score(run: _Run) -> None:
    save_scores(run.bench.store, run.plan.protocol_key, run.judge.key)
    settings = {name: run.plan.recipe.method_settings(name) for name in run.plan.trained}
    write_board(run.bench.store)
    write_cards(run.bench, run.plan.protocol_key, run.judge.key, settings, run.models, run.plan.train_task)


_STAGES: dict[Stage, Callable[[_Run], None]] = {
    Stage.models: _models,
    Stage.teacher_responses: _teacher_responses,
    Stage.dsft: _dsft,
    Stage.student_responses: _student_responses,
    Stage.signals: _signals,
    Stage.train: _train,
    Stage.responses: _responses,
    Stage.judge: _judge,
    Stage.score: _score,
}
