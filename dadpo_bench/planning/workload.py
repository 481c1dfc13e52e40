"""What a run computes, counted before it: for every stage which model does what to how many tokens.

Prompts are counted by their characters and replies by their limit, so no tokenizer is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from dadpo_bench.judging.canaries import CANARIES
from dadpo_bench.judging.comparisons import BOTH, voices
from dadpo_bench.models import batches
from dadpo_bench.plan import Plan
from dadpo_bench.planning.load import Ask, Load, Prune, Role, Rollouts, Sample, Score, Train
from dadpo_bench.stages import Stage
from dadpo_bench.types import Prompt, Sampling

CHARACTERS = 4.5
"""Characters of an English token, and the template's tokens of a turn: enough for an estimate."""
TEMPLATE = 30
FILLED = 0.85
"""Share of the new-token limit that a reply uses on average."""


def loads(plan: Plan) -> Iterator[Load]:
    """All of a run's work as if nothing were done, in the order of its stages."""
    yield from _learning(plan)
    yield from _evaluation(plan)


class _Prompts(NamedTuple):
    """Tokens that stand before replies."""

    number: int
    mean: float
    longest: float


def _prompts(lengths: Sequence[float]) -> _Prompts:
    return _Prompts(len(lengths), sum(lengths) / len(lengths), max(lengths))


def learnt_together(plan: Plan, size: int) -> list[list[Prompt]]:
    """Prompts to learn from as they are answered together, split by split."""
    return [batch for task in plan.learning.values() for batch in batches(task.prompts, size)]


def answered_together(plan: Plan) -> list[list[Prompt]]:
    """Held-out prompts as they are answered together, task by task."""
    size = plan.recipe.evaluation.sampling.batch_size
    groups = [group for task in plan.tasks for _, group in plan.drawing(task).together(task.prompts)]
    return [batch for group in groups for batch in batches(group, size)]


def measured_together(plan: Plan) -> list[int]:
    """How many prompts of every task are answered once more, for the KL columns: none by a served teacher."""
    most = plan.recipe.evaluation.kl_prompts if plan.recipe.teacher.endpoint is None else 0
    return [min(most, len(task.prompts)) for task in plan.tasks] if most else []


def _learning(plan: Plan) -> Iterator[Load]:
    """From the models to the trained contestants."""
    recipe, seeds = plan.recipe, len(plan.seeds)
    prompts = _prompts([_tokens(p) for task in plan.learning.values() for p in task.prompts])
    prune = recipe.student.prune
    if prune is not None:
        yield Prune(
            stage=Stage.models,
            who="student",
            model="parent",
            items=1,
            unit="models",
            examples=min(prune.examples, prompts.number) if prune.importance == "taylor" else 0,
            prompt=prompts.mean,
            longest=prompts.longest,
        )
    sampling = recipe.teacher_sampling
    together = len(learnt_together(plan, sampling.batch_size))
    yield _elsewhere(
        plan,
        _sample(Stage.teacher_responses, "teacher", "teacher", prompts, prompts.number, sampling, together),
    )
    yield from _training(plan, Stage.dsft, plan.trained[0], prompts)
    if plan.on_pairs:
        count, first = prompts.number * seeds, plan.trained[0]
        sampling = recipe.student_sampling
        together = len(learnt_together(plan, sampling.batch_size)) * seeds
        yield _sample(Stage.student_responses, first, "student", prompts, count, sampling, together)
    for name in sorted({"reference", "teacher"}.intersection(s for entry in plan.on_pairs for s in entry.signals)):
        scored = Score(
            stage=Stage.signals,
            who=name,
            model="student" if name == "reference" else "teacher",
            items=prompts.number * seeds,
            unit="pairs",
            at_most=True,  # not those that are too long for every method, and of equal ones one
            examples=prompts.number * seeds,
            prompt=prompts.mean,
            replies=2,
            reply=FILLED * _pair_mean(plan),
            teacher=False,
            masters=name == "reference",
        )
        yield _elsewhere(plan, scored)
    for name in plan.trained[1:]:
        yield from _training(plan, Stage.train, name, prompts)


def _elsewhere(plan: Plan, load: Sample | Score) -> Sample | Score | Ask:
    """A served teacher's work as what its server is asked; there a prompt is read once for each reply."""
    if load.model != "teacher" or plan.recipe.teacher.endpoint is None:
        return load
    replies = load.replies if isinstance(load, Score) else 1
    return Ask(
        stage=load.stage,
        who=load.who,
        items=load.items,
        unit=load.unit,
        at_most=load.at_most,
        examples=replies * load.examples,
        prompt=load.prompt,
        reply=load.reply,
    )


def _sample(
    stage: Stage, who: str, model: Role, prompts: _Prompts, count: int, sampling: Sampling, together: int
) -> Sample:
    return Sample(
        stage=stage,
        who=who,
        model=model,
        items=count,
        unit="responses",
        examples=count,
        prompt=prompts.mean,
        longest=prompts.longest,
        reply=FILLED * sampling.max_new_tokens,
        limit=sampling.max_new_tokens,
        batch_size=sampling.batch_size,
        batches=together,
    )


def _training(plan: Plan, stage: Stage, name: str, prompts: _Prompts) -> Iterator[Load]:
    """A contestant's training, and what is drawn for it on the way."""
    recipe, seeds = plan.recipe, len(plan.seeds)
    settings, entry = recipe.method_settings(name), plan.entries[name]
    validation, times = prompts.number - len(plan.train_task.prompts), 1 + int(settings.get("validations", 0))
    learnt, measured = int(settings.get("epochs", 1)) * len(plan.train_task.prompts), times * validation
    drawn = Sampling(max_new_tokens=settings["max_new_tokens"]) if entry.rollouts else None
    replies, limit = 1, (drawn or recipe.teacher_sampling).max_new_tokens
    mean: float = limit
    if entry.data == "pairs" and not drawn:
        replies, limit = 2, max(limit, recipe.student_sampling.max_new_tokens)
        mean = _pair_mean(plan)
    training = Train(
        stage=stage,
        who=name,
        model="student",
        items=seeds,
        unit="trainings",
        # Validation is a forward pass, a third of a step, each time it is measured.
        examples=(learnt + measured // 3) * seeds,
        prompt=prompts.mean,
        longest=prompts.longest,
        replies=replies,
        reply=FILLED * mean,
        limit=limit,
        teacher="teacher_logits" in entry.signals and not settings.get("cached_top_k"),
        cacheable="cached_top_k" in settings,
        recompute=bool(settings.get("gradient_checkpointing")),
        rank=(settings.get("lora") or {}).get("rank", 0),
        rollouts=entry.rollouts,
        **{key: settings[key] for key in ("batch_size", "micro_batch_tokens", "max_tokens") if key in settings},
    )
    yield training
    if drawn:
        # Before each step for its batch, and for all validation prompts each time they are measured.
        rounds = (("rollouts", learnt, training.batch_size), ("validation rollouts", measured, validation))
        for what, count, together in rounds:
            if count:
                size = min(drawn.batch_size, together)
                yield Rollouts(
                    stage=stage,
                    who=f"{name}'s {what}",
                    model="student",
                    items=0,
                    unit="responses",
                    examples=count * seeds,
                    prompt=prompts.mean,
                    longest=prompts.longest,
                    reply=training.reply,
                    limit=limit,
                    batch_size=size,
                    batches=math.ceil(count / size) * seeds,
                    training=training,
                )


def _pair_mean(plan: Plan) -> float:
    """Limit on a reply's tokens, as a mean of a pair's two."""
    return (plan.recipe.teacher_sampling.max_new_tokens + plan.recipe.student_sampling.max_new_tokens) / 2


def _evaluation(plan: Plan) -> Iterator[Load]:
    """Held-out responses, their divergences, and what is judged."""
    evaluation, students = plan.recipe.evaluation, 1 + len(plan.trained) * len(plan.seeds)
    reply = FILLED * evaluation.sampling.max_new_tokens
    prompts = [p for task in plan.tasks for p in task.prompts]
    turns = _prompts([turn for p in prompts for turn in _conversation(p, reply)])
    # At temperature 1 the first turn is answered once more for the KL columns, and read by both models.
    measured = measured_together(plan)
    once_more = sum(measured)
    together = sum(len(batch[0].turns) for batch in answered_together(plan))
    together += sum(math.ceil(few / Sampling().batch_size) for few in measured)
    # A student with another tokenizer has no KL, and what is drawn at temperature 1 anyway may serve for it.
    fewer = bool(once_more) and (plan.recipe.student.model is not None or evaluation.sampling.temperature == 1)
    roles: tuple[tuple[Role, int], ...] = (("teacher", 1), ("student", students))
    for role, count in roles:
        drawn = _sample(
            Stage.responses,
            role,
            role,
            turns,
            (turns.number + once_more) * count,
            evaluation.sampling,
            together * count,
        )
        yield _elsewhere(plan, replace(drawn, items=(len(prompts) + once_more) * count, at_most=fewer))
    if once_more:
        yield Score(
            stage=Stage.responses,
            who="KL",
            model="student",
            items=0,
            unit="responses",
            examples=2 * students * once_more,
            prompt=turns.mean,
            replies=1,
            reply=reply,
            teacher=True,
            masters=False,
        )
    yield from _judging(plan, turns, students, reply)


def _judging(plan: Plan, turns: _Prompts, students: int, reply: float) -> Iterator[Load]:
    """What every judge is asked: of single responses the teacher's too, of pairs each in both orders, or in one."""
    recipe, (first, *_) = plan.recipe, plan.tasks
    few = first.prompts[: recipe.evaluation.canary_prompts]
    prompts = sum(len(task.prompts) for task in plan.tasks)
    canaries, canary_turns = len(CANARIES) * len(few), len(CANARIES) * sum(len(p.turns) for p in few)
    orders = len(BOTH) if recipe.orders == "both" else 1
    for _, judge, config in voices(recipe.judge, recipe.judge_settings):
        alone = judge.kind == "pointwise"
        if alone:
            judged, replies = prompts * (1 + students) + canaries, turns.number * (1 + students) + canary_turns
        else:
            judged = orders * (prompts * students + canaries)
            replies = 2 * orders * (turns.number * students + canary_turns)
        # A pair's two stand behind one prompt.
        asked = Ask(
            stage=Stage.judge,
            who=judge.name,
            items=judged,
            unit="judgments",
            at_most=alone,  # of responses that say the same one is rated
            examples=replies,
            prompt=turns.mean if alone else turns.mean / 2,
            reply=reply,
        )
        # The teacher as judge reads each reply behind its prompt, and (`pmi`) behind a neutral one. What another model
        # takes, here or elsewhere, is not known.
        if judge.teacher and not config.model:
            yield Score(
                stage=asked.stage,
                who=asked.who,
                model="teacher",
                items=asked.items,
                unit=asked.unit,
                at_most=asked.at_most,
                examples=2 * replies,
                prompt=(turns.mean + TEMPLATE) / 2,
                replies=1,
                reply=reply,
                teacher=False,
                masters=False,
            )
        else:
            yield asked


def _tokens(prompt: Prompt) -> int:
    return int(sum(map(len, prompt.turns)) / CHARACTERS) + TEMPLATE


def _conversation(prompt: Prompt, reply: float) -> Iterator[float]:
    """Tokens that stand before each of a conversation's replies."""
    before = 0.0
    for turn in prompt.turns:
        before += len(turn) / CHARACTERS + TEMPLATE
        yield before
        before += reply
