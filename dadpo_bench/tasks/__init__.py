"""Tasks: typed sets of prompts, registered by entry points, or anybody's files and data sets.

One module a source; each says which files it reads and turns their records into prompts.
"""

from __future__ import annotations

import re
from pathlib import Path

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.recipe import Shares
from dadpo_bench.records import read_records
from dadpo_bench.registry import TaskEntry
from dadpo_bench.tasks.columns import SUFFIXES, own_prompt, read_path
from dadpo_bench.tasks.data_set import TaskData
from dadpo_bench.tasks.sources import files_of, hub_data
from dadpo_bench.tasks.splits import SPLITS, only
from dadpo_bench.types import Prompt, Value, content_key

__all__ = ["Task", "TaskData", "assistance", "general", "load_task", "read_prompts", "task_data"]

_AUTHORED = "written for this project"

assistance = TaskEntry(
    name="assistance",
    summary="Everyday help: explain, advise, rewrite, summarise, plan, write (in-domain)",
    target="dadpo_bench.tasks.shipped:assistance",
    source=_AUTHORED,
    domain="in",
    licence="Apache-2.0",
    splits=SPLITS,
    prompts={"train": 252, "validation": 36, "heldout": 72},
)
general = TaskEntry(
    name="general",
    summary="Eight other kinds, half of them two-turn: reasoning, arithmetic, extraction, coding, … (out-of-domain)",
    target="dadpo_bench.tasks.shipped:general",
    source=_AUTHORED,
    domain="out",
    licence="Apache-2.0",
    splits=("heldout",),
    prompts={"heldout": 48},
    turns=2,
)


class Task(Value):
    """The prompts of one split of a task, in order."""

    name: str
    domain: str
    split: str
    prompts: tuple[Prompt, ...]
    duplicates: int = 0
    """Repeated prompts of its source that were left out."""

    @property
    def key(self) -> str:
        """Content hash of the prompts in order."""
        return content_key("task", self.name, self.split, [p.key for p in self.prompts])


_HUB = r"[\w.-]+/[\w.-]+"
_HUB_SPLITS = {"train": "train", "validation": "validation", "heldout": "test"}


def load_task(
    name: str,
    split: str,
    limit: int | None = None,
    domain: str | None = None,
    behind: int | None = 0,
    *,
    data: str | None = None,
    shares: Shares | None = None,
) -> Task:
    """A split of what `task_data` finds, cut to `limit`.

    A file without `shares` has no splits of its own: `behind` is how many of its first prompts another one takes, None
    for all. `domain` is `in` or `out`; left out, a registered task's own, and `out` for all others.

    Raises `UserError` as `task_data` does, and for repeated prompts of a registered task.
    """
    registered = name in registry.tasks.names()
    found = task_data(name, split, data, shares)
    prompts = found.prompts
    if not registered and shares is None and _path(name, data) is not None:
        prompts = prompts[len(prompts) if behind is None else behind :]
    chosen = prompts[:limit]
    if len({p.key for p in chosen}) != len(chosen):
        raise UserError(f"task '{name}': a prompt occurs twice")
    own = registry.tasks[name].domain if registered else "out"
    return Task(
        name=name if registered or data is not None else Path(name).stem,
        domain=domain or own,
        split=split,
        prompts=chosen,
        duplicates=found.duplicates,
    )


def task_data(name: str, split: str, data: str | None = None, shares: Shares | None = None) -> TaskData:
    """The prompts of a split, and the baseline's answers where the source carries them.

    `name` is a registered task, a file or folder of prompts, or a data set of the hub (`OWNER/NAME`). `data` is where
    a registered task's files lie; with any other name, the file or folder itself. `shares` split by content what has no
    splits of its own; without them a file is whole in every split, and the hub's data set has its own.

    Raises `UserError` for unknown names and splits, for files that cannot be had, and for malformed records by place.
    """
    if name in registry.tasks.names():
        return _registered(registry.tasks[name], split, data, shares)
    path = _path(name, data)
    if path is None and re.fullmatch(_HUB, name):
        path = hub_data(name)
        if shares is None:
            splits = sorted(file.stem for file in path.glob("*.jsonl"))
            if _HUB_SPLITS[split] not in splits:
                raise UserError(
                    f"data set '{name}' has no split '{_HUB_SPLITS[split]}', it has: {', '.join(splits)}; "
                    "let the recipe's `split` cut it"
                )
            path = path / f"{_HUB_SPLITS[split]}.jsonl"
    if path is None:
        registry.tasks[name]  # raises, naming near ones
        raise AssertionError(name)
    found = read_path(path)
    return only(found, split, shares) if shares else found


def _registered(entry: TaskEntry, split: str, data: str | None, shares: Shares | None) -> TaskData:
    if split not in entry.splits:
        raise UserError(f"task '{entry.name}' has no split '{split}'; it has: {', '.join(entry.splits)}")
    if shares is not None:
        raise UserError(f"task '{entry.name}' has splits of its own; `split` is for files and data sets without")
    if entry.repository:
        files = files_of(entry, split, Path(data).expanduser() if data else None)
        found: TaskData = registry.tasks.load(entry.name)(files, split)
        return found
    if data is not None:
        raise UserError(f"task '{entry.name}' is installed with its prompts; it takes no data")
    return TaskData(tuple(registry.tasks.load(entry.name)(split)))


def _path(name: str, data: str | None) -> Path | None:
    """The file or folder that is meant; None for a name of the registry or the hub."""
    path = Path(data if data is not None else name).expanduser()
    if data is not None or path.suffix in SUFFIXES or (path.is_dir() and "/" in name):
        return path
    return path if "/" in name and not re.fullmatch(_HUB, name) else None


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """Prompts from JSON Lines: {"id", "turns": […], "category"?, "system"?, "reference"?, "checklist"?} a line."""
    prompts = tuple(own_prompt(record, place) for place, record in read_records(path, "prompts file"))
    if not prompts:
        raise UserError(f"prompts file {path} holds no prompt")
    return prompts
