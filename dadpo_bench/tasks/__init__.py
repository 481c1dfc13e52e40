"""Tasks: typed sets of prompts, registered by entry points; a JSONL file is one too.

A registered task's target is called with a split's name and gives its prompts.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.recipe import explain
from dadpo_bench.records import read_records
from dadpo_bench.registry import TaskEntry
from dadpo_bench.types import Prompt, Value, content_key

__all__ = ["Task", "assistance", "general", "load_task", "read_prompts"]

_AUTHORED = "written for this project"

assistance = TaskEntry(
    name="assistance",
    summary="Everyday help: explain, advise, rewrite, summarise, plan, write (in-domain)",
    target="dadpo_bench.tasks.shipped:assistance",
    source=_AUTHORED,
    domain="in",
    licence="Apache-2.0",
    splits=("train", "validation", "heldout"),
)
general = TaskEntry(
    name="general",
    summary="Eight other kinds, half of them two-turn: reasoning, arithmetic, extraction, coding, … (out-of-domain)",
    target="dadpo_bench.tasks.shipped:general",
    source=_AUTHORED,
    domain="out",
    licence="Apache-2.0",
    splits=("heldout",),
)


class Task(Value):
    """The prompts of one split of a task, in order."""

    name: str
    domain: str
    split: str
    prompts: tuple[Prompt, ...]

    @property
    def key(self) -> str:
        """Content hash of the prompts in order."""
        return content_key("task", self.name, self.split, [p.key for p in self.prompts])


def load_task(
    name: str, split: str, limit: int | None = None, domain: str | None = None, behind: int | None = 0
) -> Task:
    """A registered task's split, or a JSONL file of prompts (any split), cut to `limit`.

    A file has no splits of its own: `behind` is how many of its first prompts another one takes, None for all.

    `domain` is `in` or `out`; left out, a registered task's own, and `out` for a file.

    Raises `UserError` for unknown names and splits, for malformed lines (by number) and for repeated prompts.
    """
    if name.endswith(".jsonl") or "/" in name:
        everything = read_prompts(Path(name).expanduser())
        prompts, label, own = everything[len(everything) if behind is None else behind :], Path(name).stem, "out"
    else:
        entry = registry.tasks[name]
        if split not in entry.splits:
            raise UserError(f"task '{name}' has no split '{split}'; it has: {', '.join(entry.splits)}")
        prompts, label, own = tuple(registry.tasks.load(name)(split)), name, entry.domain
    chosen = prompts[:limit]
    if len({p.key for p in chosen}) != len(chosen):
        raise UserError(f"task '{name}': a prompt occurs twice")
    return Task(name=label, domain=domain or own, split=split, prompts=chosen)


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """Prompts from JSON Lines: {"id", "turns": […], "category"?, "system"?, "reference"?, "checklist"?} a line."""
    prompts = []
    for place, record in read_records(path, "prompts file"):
        try:
            prompt = Prompt.model_validate(record)
        except ValidationError as error:
            raise UserError(f"{place}: {explain(error, '')}") from error
        if not prompt.turns or not all(turn.strip() for turn in prompt.turns):
            raise UserError(f"{place}: a prompt needs at least one turn, and none may be empty")
        prompts.append(prompt)
    if not prompts:
        raise UserError(f"prompts file {path} holds no prompt")
    return tuple(prompts)
