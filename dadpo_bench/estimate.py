"""`--dry-run`: the stages with their sizes, and the time they take where the machine's rates are known."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dadpo_bench import registry
from dadpo_bench.engine import LocalEngine
from dadpo_bench.models.embedded import NAME
from dadpo_bench.models.loading import at_hand
from dadpo_bench.models.precision import compute_dtype, device
from dadpo_bench.pipeline import Plan, done_stages
from dadpo_bench.progress import dry
from dadpo_bench.stages import Stage
from dadpo_bench.stages.bench import Bench
from dadpo_bench.store import open_store
from dadpo_bench.store.connection import copy_database
from dadpo_bench.types import Prompt

_CHARACTERS = 4.5
"""Characters of an English token, and the template's tokens of a turn: enough for an estimate."""
_TEMPLATE = 30
_FILLED = 0.85
"""Share of the new-token limit that a reply uses on average."""


class Rates(NamedTuple):
    """Tokens a second of the embedded model on two cores: bf16 as `make run` measured it, fp32 for AVX2, estimated."""

    generate: float
    forward: float
    train: float


_CPU = {"torch.bfloat16": Rates(300, 1400, 350), "torch.float32": Rates(95, 400, 125)}


class Cost(NamedTuple):
    """What one stage has to do from nothing."""

    stage: str
    items: int
    unit: str
    tokens: int
    seconds: float | None
    """None where the rate of this model on this machine is not known."""
    done: bool
    """Whether the store holds it all."""


def estimate(plan: Plan, store: str) -> list[Cost]:
    """Sizes of every stage as if nothing were done, and which of them the store holds; loads no weights."""
    recipe = plan.recipe
    known = recipe.teacher.model == NAME and device().type == "cpu"
    rates = _CPU[str(compute_dtype())] if known else None
    seeds, train = len(plan.seeds), [p for task in plan.learning.values() for p in task.prompts]
    learnt = len(plan.train_task.prompts) / len(train)
    asked = sum(map(_prompt_tokens, train))
    taught = int(len(train) * recipe.teacher_sampling.max_new_tokens * _FILLED)
    own = int(len(train) * recipe.student_sampling.max_new_tokens * _FILLED)
    entries = {c: registry.methods[recipe.methods[c].method] for c in plan.trained}
    paired = [c for c, entry in entries.items() if entry.data == "pairs"]
    pairs = asked + taught + own if paired else 0
    scorers = {"reference", "teacher"}.intersection(s for c in paired for s in entries[c].signals)

    def trained(name: str) -> int:
        settings = recipe.method_settings(name)
        length = pairs if name in paired else asked + taught
        # A resident teacher's forward pass costs about a third of the student's step.
        factor = 1.35 if "teacher_logits" in entries[name].signals else 1.0
        # Validation is a forward pass, a third of a step, each time it is measured.
        passes = learnt * settings.get("epochs", 1) + (1 - learnt) * (1 + settings.get("validations", 0)) / 3
        return int(length * passes * factor * seeds)

    held_out = sum(_replies(task.prompts, recipe.evaluation.sampling.max_new_tokens) for task in plan.tasks)
    entrants = 2 + len(plan.trained) * seeds
    kl_prompts = sum(min(recipe.evaluation.kl_prompts, len(task.prompts)) for task in plan.tasks)
    kl_tokens = int(kl_prompts * recipe.evaluation.sampling.max_new_tokens * _FILLED) * entrants
    judged = sum(len(task.prompts) for task in plan.tasks) * entrants + 8 * recipe.evaluation.canary_prompts
    rating = 2 * held_out * entrants + judged * 90
    stages = [
        (Stage.teacher_responses, len(train), "responses", taught, "generate"),
        (Stage.dsft, seeds, "trainings", trained("sft"), "train"),
        (Stage.student_responses, len(train) * seeds, "responses", own * seeds if paired else 0, "generate"),
        (Stage.signals, len(train) * seeds, "pairs", len(scorers) * pairs * seeds, "forward"),
        (
            Stage.train,
            seeds * (len(plan.trained) - 1),
            "trainings",
            sum(map(trained, plan.trained[1:])),
            "train",
        ),
        (Stage.responses, judged, "responses", held_out * entrants + kl_tokens, "generate"),
        (Stage.judge, judged, "judgments", rating, "forward"),
    ]
    done = _done(plan, Path(store))
    return [
        Cost(
            str(stage),
            items if tokens else 0,
            unit,
            tokens,
            tokens / getattr(rates, rate) if rates else None,
            stage in done,
        )
        for stage, items, unit, tokens, rate in stages
    ]


def _done(plan: Plan, store: Path) -> list[Stage]:
    """Stages that a SQLite store holds in full, found by walking through a copy of it."""
    sources = (plan.recipe.teacher.model, plan.recipe.student.model)
    if not store.is_file() or not all(at_hand(source) for source in sources if source):
        return []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / store.name
        copy_database(store, copy)
        opened = open_store(str(copy))
        opened.artefacts = store.with_suffix("")
        done = done_stages(Bench(opened, LocalEngine(), dry()), plan)
        opened.close()
    return done


def _prompt_tokens(prompt: Prompt) -> int:
    return int(sum(map(len, prompt.turns)) / _CHARACTERS) + _TEMPLATE


def _replies(prompts: tuple[Prompt, ...], limit: int) -> int:
    return int(sum(len(p.turns) for p in prompts) * limit * _FILLED)


def show_estimate(console: Console, plan: Plan, costs: list[Cost]) -> None:
    """The table and the sum."""
    recipe = plan.recipe
    table = Table(title=escape(recipe.name))
    for name in ("stage", "items", "tokens", "minutes", "state"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for cost in costs:
        minutes = "–" if cost.seconds is None else f"{cost.seconds / 60:.1f}"
        state = "done" if cost.done else "to do" if cost.items else "–"
        table.add_row(cost.stage, f"{cost.items:,} {cost.unit}", f"{cost.tokens:,}", minutes, state)
    console.print(table)
    facts = [
        f"contestants: teacher, student, {', '.join(plan.trained)}; seeds: {', '.join(map(str, plan.seeds))}",
        f"tasks: {', '.join(f'{t.name} ({len(t.prompts)} prompts)' for t in plan.tasks)}; judge: {recipe.judge}",
        f"arithmetic: {str(compute_dtype()).removeprefix('torch.')} on {device().type}",
    ]
    if all(c.seconds is not None for c in costs):
        left = sum(c.seconds or 0 for c in costs if not c.done)
        facts.append(f"about {left / 60:.0f} minutes to do on two cores; parts of a stage that are done count as to do")
    else:
        facts.append("no time: the rates of this model on this machine are not known")
    for fact in facts:
        console.print(fact, markup=False, highlight=False, soft_wrap=True)
