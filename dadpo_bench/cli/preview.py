"""`--dry-run`: what a judge that costs money would be asked, and what that would cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from rich.console import Console

from dadpo_bench.judging.canaries import CANARIES
from dadpo_bench.judging.comparisons import Orders, voices
from dadpo_bench.plan import Plan
from dadpo_bench.planning.workload import CHARACTERS, FILLED
from dadpo_bench.registry import JudgeEntry, judges
from dadpo_bench.stages.teachers import judge_context
from dadpo_bench.types import Comparison, JsonObject, JudgeContext, Prompt, Reply, Response, ShownJudge

_SHOWN = 2


def show_questions(console: Console, plan: Plan) -> None:
    """What the judge of a run would be asked, placeholders for the responses; needs no key."""
    recipe = plan.recipe
    context = judge_context(recipe.teacher)
    length = int(FILLED * CHARACTERS * recipe.evaluation.sampling.max_new_tokens)
    prompts = [prompt for task in plan.tasks for prompt in task.prompts]
    students = 1 + len(plan.trained) * len(plan.seeds)
    canaries = len(CANARIES) * min(recipe.evaluation.canary_prompts, len(plan.tasks[0].prompts))
    # A pointwise judge rates the teacher's responses too.
    counts = len(prompts) * students + canaries, len(prompts) * (students + 1) + canaries
    judge = recipe.judge, recipe.judge_settings, recipe.orders
    for previewed in previews(*judge, context, prompts, length, *counts):
        previewed.show(console)


def previews(
    judge: str,
    settings: JsonObject,
    orders: Orders,
    context: JudgeContext,
    prompts: Sequence[Prompt],
    length: int,
    pairs: int,
    responses: int,
) -> Iterator[Preview]:
    """What a judge, or each member of a panel, would be asked of responses that are not made yet, `length` characters
    a turn: so many pairs of a pairwise judge, so many responses of a pointwise one.
    """
    few = [_comparison(prompt, length) for prompt in prompts[:: max(1, len(prompts) // 100)]]
    asked = [_comparison(prompt, 0) for prompt in prompts]
    for voice in voices(judge, settings):
        count = responses if voice[1].kind == "pointwise" else pairs * (2 if orders == "both" else 1)
        if previewed := preview(*voice, context, asked, few, count):
            # Of responses that say the same one is rated.
            fewer = "at most " if voice[1].kind == "pointwise" else ""
            yield previewed._replace(cost=fewer + previewed.cost)


class Preview(NamedTuple):
    """What a judge would be asked."""

    judge: str
    questions: list[str]
    """Two of them."""
    prompts: int
    unfit: dict[str, int]
    """Why how many of the prompts stay unscored without a question."""
    cost: str
    """One line."""

    def show(self, console: Console) -> None:
        """Print it."""
        say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
        for number, text in enumerate(self.questions, start=1):
            say(f"\n--- question {number} to {self.judge} ---\n{text}")
        for reason, number in self.unfit.items():
            say(f"\n{self.judge}: {number} of {self.prompts} prompts stay unscored: {reason}")
        say(f"\n{self.judge}, if nothing is stored: {self.cost}")


def preview(
    name: str,
    entry: JudgeEntry,
    config: Any,
    context: JudgeContext,
    asked: Sequence[Comparison],
    sized: Sequence[Comparison],
    count: int,
) -> Preview | None:
    """Two of what is asked as a judge would be asked it, how many would stay unscored and why, and what `count` like
    the `sized` ones cost. None for a judge that cannot tell.
    """
    if not hasattr(judges.load(entry.name), "preview"):
        return None
    judge: ShownJudge = judges.load(entry.name)

    def items(some: Sequence[Comparison]) -> list[Any]:
        return list(some) if entry.kind == "pairwise" else [comparison.contestant for comparison in some]

    reasons = judge.unfit(config, context, items(asked))
    fitting = [comparison for comparison, reason in zip(asked, reasons, strict=True) if not reason]
    shown, _ = judge.preview(config, context, items(fitting[:_SHOWN]), count)
    _, cost = judge.preview(config, context, items(sized), count)
    return Preview(name, shown, len(asked), dict(Counter(filter(None, reasons)).most_common()), cost)


def _comparison(prompt: Prompt, length: int) -> Comparison:
    """Of responses that are not made yet; as long as they may be, where that counts."""
    contestant, baseline = (
        Response(
            prompt=prompt,
            replies=tuple(Reply(text=f"({who}'s response)".ljust(length, ".")) for _ in prompt.turns),
        )
        for who in ("the contestant", "the baseline")
    )
    return Comparison(contestant=contestant, baseline=baseline, order="ab")
