"""What stages hand to the engine, cut as they cut it: the items that workers share, the trainings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from dadpo_bench.judging.comparisons import voices
from dadpo_bench.plan import Plan
from dadpo_bench.planning.load import Ask, Load, Prune, Rollouts, Sample, Score
from dadpo_bench.planning.workload import answered_together, learnt_together, loads, measured_together
from dadpo_bench.stages import Stage
from dadpo_bench.stages.signals import PAIRS
from dadpo_bench.store.rows import chunks
from dadpo_bench.types import Sampling

Where = Literal["workers", "trainings", "driver", "asked"]
"""`driver`: the process that was started; `asked`: it asks who has a model of their own."""

Item = tuple[Load, ...]
"""What one worker, or one training, does, one part after another."""

Calls = Sequence[Sequence[Item]]
"""What the engine is given in one go; the next begins when all of it is done."""


class Step(NamedTuple):
    """Loads of one stage that are worked on together."""

    where: Where
    loads: Sequence[Load]
    calls: Calls = ()

    @property
    def stage(self) -> Stage:
        """Theirs."""
        return self.loads[0].stage

    @property
    def who(self) -> tuple[str, ...]:
        """Theirs; a training draws its own rollouts."""
        return tuple(load.who for load in self.loads if not isinstance(load, Rollouts))


def steps(plan: Plan) -> Iterator[Step]:
    """All of a run's work as if nothing were done, in the order of its stages."""
    for stage, group in itertools.groupby(loads(plan), lambda load: load.stage):
        some = list(group)
        match stage:
            case Stage.dsft | Stage.train:
                yield _trainings(plan, some)
            case Stage.responses:
                yield from _answers(plan, some)
            case Stage.judge:
                yield from _judgments(plan, some)
            case _:
                for load in some:
                    yield Step("asked" if isinstance(load, Ask) else "workers", [load], _learning(plan, load))


def _learning(plan: Plan, load: Load) -> Calls:
    """All splits in one go, and all seeds; they share the teacher's responses."""
    match load:
        case Sample():
            drawn = [_drawn(load, len(some)) for some in learnt_together(plan, load.batch_size)]
            return [drawn if load.stage is Stage.teacher_responses else drawn * len(plan.seeds)]
        case Score():
            splits = [task.prompts for task in plan.learning.values()]
            runs = [(replace(load, examples=len(some)),) for split in splits for some in chunks(split, PAIRS)]
            return [runs * len(plan.seeds)]
        case Prune():
            return [[(load,)]]
    return []


def _drawn(load: Sample, rows: int, turns: int = 1) -> Item:
    return (replace(load, examples=rows, batch_size=rows, batches=1),) * turns


def _trainings(plan: Plan, some: Sequence[Load]) -> Step:
    """Each with the rollouts that are drawn for it, all methods of a seed before the next seed."""
    seeds = len(plan.seeds)
    parts: dict[str, list[Load]] = {}
    for load in some:
        training = load.training if isinstance(load, Rollouts) else load
        own = replace(load, examples=load.examples // seeds)
        if isinstance(own, Rollouts):
            own = replace(own, batches=own.batches // seeds)
        parts.setdefault(training.who, []).append(own)
    return Step("trainings", some, [[tuple(own) for own in parts.values()] * seeds])


def _answers(plan: Plan, some: Sequence[Load]) -> Iterator[Step]:
    """Everybody's in one go, then all samples for the KL columns, then the divergences, each of a model and a task."""
    yield from (Step("asked", [load]) for load in some if isinstance(load, Ask))
    few = [range(number) for number in measured_together(plan)]
    drawn = [load for load in some if isinstance(load, Sample)]
    answers: list[Item] = []
    samples: list[Item] = []
    for load in drawn:
        models = load.items // (sum(len(task.prompts) for task in plan.tasks) + sum(map(len, few)))
        answers += [_drawn(load, len(batch), len(batch[0].turns)) for batch in answered_together(plan)] * models
        samples += [_drawn(load, len(c)) for prompts in few for c in chunks(prompts, Sampling().batch_size)] * models
    yield Step("workers", drawn, [answers, samples])
    for kl in (load for load in some if isinstance(load, Score)):
        directions = kl.examples // sum(map(len, few))
        yield Step("workers", [kl], [[(replace(kl, examples=len(prompts)),) for prompts in few] * directions])


def _judgments(plan: Plan, some: Sequence[Load]) -> Iterator[Step]:
    """One judge after another; settings of one that workers may load say how many questions each takes at a time."""
    recipe = plan.recipe
    for load, (*_, config) in zip(some, voices(recipe.judge, recipe.judge_settings), strict=True):
        share = getattr(config, "share", 0)
        elsewhere: Where = "asked" if isinstance(load, Ask) and hasattr(config, "model") else "driver"
        runs = range(0, load.items, share or load.items)
        ends = [load.examples * min(start + runs.step, load.items) // load.items for start in runs]
        items = [(replace(load, examples=end - start),) for start, end in itertools.pairwise([0, *ends])]
        yield Step("workers" if share else elsewhere, [load], [items])
