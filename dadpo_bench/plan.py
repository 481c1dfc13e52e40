"""What a run was asked to do, checked before any work: tasks, methods, judge, and that nothing leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dadpo_bench import registry
from dadpo_bench.contamination import label as shown
from dadpo_bench.contamination import overlap
from dadpo_bench.counts import counted
from dadpo_bench.errors import UserError
from dadpo_bench.judging.comparisons import check_judge, voices
from dadpo_bench.models.loading import identity, tokenizer_identity
from dadpo_bench.progress import Reporter, silent
from dadpo_bench.recipe import FIRST, Recipe
from dadpo_bench.registry import MethodEntry
from dadpo_bench.stages.drawing import Drawing, temperatures_of
from dadpo_bench.tasks import Task, load_task

SHARED_SEED = 0
"""Seeds what all training seeds share: the teacher's responses, and everybody's to held-out prompts."""

TRAIN, VALIDATION = "train", "validation"
_CALLED = {TRAIN: "training", VALIDATION: "validation"}


@dataclass(frozen=True)
class Plan:
    """What a run was asked to do, checked before any work."""

    recipe: Recipe
    contestants: tuple[str, ...]
    seeds: tuple[int, ...]
    train_task: Task
    validation_task: Task | None
    """Prompts measured while training, never learnt from."""
    tasks: tuple[Task, ...]

    @cached_property
    def protocol_key(self) -> str:
        """Under which rows may be compared."""
        tasks = [task.key for task in (*self.learning.values(), *self.tasks)]
        drawn = [dict(d.temperatures) for d in map(self.drawing, self.tasks) if d.temperatures]
        return self.recipe.protocol_key([*tasks, *drawn], identity, tokenizer_identity)

    def drawing(self, task: Task) -> Drawing:
        """How everybody answers a held-out task."""
        evaluation = self.recipe.evaluation
        own = temperatures_of(task.name) if evaluation.by_category else {}
        return Drawing(evaluation.sampling, own, SHARED_SEED)

    @property
    def learning(self) -> dict[str, Task]:
        """By split: the prompts that the teacher and the dSFT student answer for the methods."""
        return {TRAIN: self.train_task} | ({VALIDATION: self.validation_task} if self.validation_task else {})

    @property
    def trained(self) -> tuple[str, ...]:
        """dSFT, then the contestants asked for."""
        return (FIRST, *(c for c in self.contestants if c != FIRST))

    @property
    def entries(self) -> dict[str, MethodEntry]:
        """By trained contestant: what its method says of itself."""
        return {name: registry.methods[self.recipe.methods[name].method] for name in self.trained}

    @property
    def on_pairs(self) -> list[MethodEntry]:
        """Of these, the methods that learn from pairs."""
        return [entry for entry in self.entries.values() if entry.data == "pairs"]


def make_plan(recipe: Recipe, contestants: Sequence[str], seeds: int, reporter: Reporter | None = None) -> Plan:
    """Check everything a user may have got wrong. Raises `UserError`; loads no weights."""
    recipe = recipe.including(contestants)
    for contestant in contestants:
        recipe.method_settings(contestant)
    check_judge(recipe.judge, recipe.judge_settings)
    _check_teacher(recipe, (FIRST, *contestants))
    tasks = tuple(_held_out(recipe, name) for name in recipe.tasks)
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two held-out tasks are called '{twice}': give one of the files another name")
    learning = recipe.prompts
    train_task = load_task(learning.task, TRAIN, learning.train, data=learning.data, shares=learning.split)
    validation_task = _validation_task(recipe, contestants)
    learnt: dict[str, str] = {}
    for task in (train_task, validation_task) if validation_task else (train_task,):
        if any(len(p.turns) != 1 for p in task.prompts):
            raise UserError(f"training task '{task.name}': {_CALLED[task.split]} prompts have one turn each")
        _refuse_shared(task, learnt)
        learnt |= dict.fromkeys((p.key for p in task.prompts), task.split)
    if not learning.allow_contamination:
        for task in tasks:
            _refuse_shared(task, learnt)
            _refuse_leaks(task, [task for task in (train_task, validation_task) if task], reporter or silent())
    if seeds < 1:
        raise UserError("--seeds: at least 1")
    return Plan(
        recipe,
        tuple(dict.fromkeys(contestants)),
        tuple(range(recipe.seed, recipe.seed + seeds)),
        train_task,
        validation_task,
        tasks,
    )


_NOT_SERVED = {
    "teacher": "learns from the teacher's log-probs of given tokens, which an OpenAI-compatible endpoint does not "
    "give: serve it by vLLM or SGLang (teacher.protocol), or leave {} out (sft and dpo need responses alone)",
    "teacher_logits": "compares student and teacher over the whole vocabulary, which no endpoint gives: leave {} out "
    "(dadpo needs the teacher's log-probs alone), or name a teacher on this machine",
}
"""Why a method has no use for a teacher behind an endpoint, by the signal it lacks."""


def unfit(recipe: Recipe, contestant: str) -> str:
    """Why the recipe's teacher cannot teach a contestant of its; empty where it can."""
    for signal in registry.methods[recipe.methods[contestant].method].signals:
        if signal in _NOT_SERVED and signal not in recipe.teacher.gives:
            return f"{contestant} {_NOT_SERVED[signal].format(contestant)}"
    return ""


def _check_teacher(recipe: Recipe, contestants: Sequence[str]) -> None:
    if why := next(filter(None, (unfit(recipe, contestant) for contestant in contestants)), ""):
        raise UserError(why)
    if recipe.teacher.endpoint is None:
        return
    for name, judge, config in voices(recipe.judge, recipe.judge_settings):
        if judge.teacher and not config.model:
            raise UserError(
                f"judge {name} scores with the recipe's teacher, whose weights are behind an endpoint: name another "
                "scoring model (--set judge_settings.model=…), or another judge"
            )


def _held_out(recipe: Recipe, name: str) -> Task:
    choice, learning = recipe.tasks[name], recipe.prompts
    same = name == learning.task
    return load_task(
        name,
        "heldout",
        choice.prompts,
        choice.domain,
        data=choice.data or (learning.data if same else None),
        shares=choice.split or (learning.split if same else None),
    )


def _validation_task(recipe: Recipe, contestants: Sequence[str]) -> Task | None:
    prompts = recipe.prompts
    if prompts.validation:
        task = load_task(
            prompts.task,
            VALIDATION,
            prompts.validation,
            behind=prompts.train,
            data=prompts.data,
            shares=prompts.split,
        )
        if len(task.prompts) < prompts.validation:
            raise UserError(
                f"prompts.validation: {prompts.validation} asked for, '{prompts.task}' has {len(task.prompts)} left"
            )
        return task
    for name in (FIRST, *contestants):
        if recipe.method_settings(name).get("select") == "best":
            raise UserError(f"methods.{name}.select: best is chosen on validation prompts; set prompts.validation")
    return None


def _refuse_shared(task: Task, learnt: Mapping[str, str]) -> None:
    shared = [p for p in task.prompts if p.key in learnt]
    if shared:
        raise UserError(
            f"task '{task.name}' shares {counted(len(shared), 'prompts')} with the {_CALLED[learnt[shared[0].key]]} "
            f"prompts, the first is '{shown(shared[0])}'; take them out (`dadpo-bench contamination --write` does)"
        )


def _refuse_leaks(task: Task, learnt: Sequence[Task], reporter: Reporter) -> None:
    for source in learnt:
        label = f"{task.name} against the {_CALLED[source.split]} prompts"
        with reporter.bar(label, len(source.prompts), "prompts") as bar:
            found = overlap(source.prompts, task.prompts, advance=bar.advance)
        if found.leaks:
            worst = found.leaks[0]
            raise UserError(
                f"task '{task.name}': {counted(len(found.leaks), 'prompts')} leaked into the {_CALLED[source.split]} "
                f"prompts, worst '{shown(worst.heldout)}' from '{shown(worst.train)}' ({worst.how}); see `dadpo-bench "
                "contamination`, take them out (its --write), or allow them with --allow-contamination"
            )
