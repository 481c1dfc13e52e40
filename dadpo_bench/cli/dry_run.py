"""What `run --dry-run` shows: a table of the stages, and what is to be said of the run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dadpo_bench.counts import counted
from dadpo_bench.models.precision import compute_dtype, device
from dadpo_bench.plan import Plan
from dadpo_bench.planning import Cost
from dadpo_bench.tables import print_table


def show_estimate(console: Console, plan: Plan, costs: Sequence[Cost]) -> None:
    """The table and the sum."""
    recipe = plan.recipe
    table = Table(title=escape(recipe.name))
    for name in ("stage", "items", "tokens", "minutes", "state"):
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    for cost in costs:
        minutes = "–" if cost.seconds is None else f"{cost.seconds / 60:.1f}"
        state = "done" if cost.done else "to do" if cost.items else "–"
        items = ("at most " if cost.at_most and cost.items else "") + counted(cost.items, cost.unit)
        table.add_row(cost.stage, items, f"{cost.tokens:,}", minutes, state)
    print_table(console, table)
    tasks = [f"{task.name} ({counted(len(task.prompts), 'prompts')})" for task in plan.tasks]
    facts = [
        f"contestants: teacher, student, {', '.join(plan.trained)}; seeds: {', '.join(map(str, plan.seeds))}",
        f"tasks: {', '.join(tasks)}; judge: {recipe.judge}",
        f"arithmetic: {str(compute_dtype()).removeprefix('torch.')} on {device().type}",
    ]
    if all(c.seconds is not None for c in costs):
        left = counted(round(sum(c.seconds or 0 for c in costs if not c.done) / 60), "minutes")
        facts.append(f"about {left} to do on two cores; parts of a stage that are done count as to do")
    else:
        facts.append("no time: the rates of this model on this machine are not known")
    for fact in facts:
        console.print(fact, markup=False, highlight=False, soft_wrap=True)
