"""`--dry-run`: what a judge that costs money would be asked, and what that would cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Console

from dadpo_bench.judging.canaries import CANARIES
from dadpo_bench.judging.comparisons import voices
from dadpo_bench.models import find
from dadpo_bench.pipeline import Plan
from dadpo_bench.planning.workload import CHARACTERS, FILLED
from dadpo_bench.registry import JudgeEntry, judges
from dadpo_bench.types import Comparison, JudgeContext, Prompt, Reply, Response

_SHOWN = 2


def show_questions(console: Console, plan: Plan) -> None:
    """Two prompts as they would be sent, placeholders for the responses, and the estimate; needs no key.

    Of a panel those of every member. Of prompts that would not be asked about, how many and why. Nothing for a judge
    that cannot tell.
    """
    for name, entry, config in voices(plan.recipe.judge, plan.recipe.judge_settings):
        _show_questions(console, plan, name, entry, config)


def _show_questions(console: Console, plan: Plan, name: str, entry: JudgeEntry, config: Any) -> None:
    recipe = plan.recipe
    judge = judges.load(entry.name)
    if not hasattr(judge, "preview"):
        return
    context = JudgeContext(lambda: find(recipe.teacher.model), recipe.teacher.chat_template)
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    length = int(FILLED * CHARACTERS * recipe.evaluation.sampling.max_new_tokens)
    prompts = [prompt for task in plan.tasks for prompt in task.prompts]
    students = 1 + len(plan.trained) * len(plan.seeds)
    canaries = len(CANARIES) * min(recipe.evaluation.canary_prompts, len(plan.tasks[0].prompts))
    pairwise = entry.kind == "pairwise"
    # A pointwise judge rates the teacher's responses too.
    count = len(prompts) * (students + (not pairwise)) + canaries
    if pairwise and recipe.orders == "both":
        count *= 2

    def items(some: Sequence[Prompt], length: int) -> list[Any]:
        asked = [_comparison(prompt, length) for prompt in some]
        return asked if pairwise else [comparison.contestant for comparison in asked]

    few = prompts[:: max(1, len(prompts) // 100)]
    reasons = judge.unfit(config, context, items(prompts, 0))
    fitting = [prompt for prompt, reason in zip(prompts, reasons, strict=True) if not reason]
    shown, _ = judge.preview(config, context, items(fitting[:_SHOWN], 0), count)
    _, cost = judge.preview(config, context, items(few, length), count)
    for number, text in enumerate(shown, start=1):
        say(f"\n--- question {number} to {name} ---\n{text}")
    who = "judge" if name == recipe.judge else f"judge, {name}"
    for reason, number in Counter(filter(None, reasons)).most_common():
        say(f"\n{who}: {number} of {len(prompts)} prompts stay unscored: {reason}")
    say(f"\n{who}, if nothing is stored: {cost}")


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
