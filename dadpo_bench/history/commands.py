"""The command line that repeats a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from dadpo_bench.history.runs import RunRecord
from dadpo_bench.history.values import texts
from dadpo_bench.recipe import DEFAULT, shipped


def command_of(run: RunRecord, store: str = "") -> str:
    """The command line that does the same into `store`, the default one if empty; empty where none was noted."""
    return command_line(run.arguments, store)


def command_line(arguments: Mapping[str, Any], store: str = "") -> str:
    """`dadpo-bench run` with arguments as a run keeps them, for a shell; empty where they name no method.

    Options that stand for settings are written as `--set`, which is what they are.
    """
    methods, changes = texts(arguments.get("methods")), texts(arguments.get("set"))
    recipe, judge, seeds = (arguments.get(name) for name in ("recipe", "judge", "seeds"))
    if not methods:
        return ""
    options = ["--seeds", str(seeds)] if isinstance(seeds, int) and seeds != 1 else []
    options += ["--recipe", str(recipe)] if recipe and recipe != DEFAULT else []
    chosen_otherwise = any(change.startswith("judge=") for change in changes)
    if judge and not chosen_otherwise and judge != _own_judge(str(recipe)):
        options += ["--judge", str(judge)]
    for name in ("data", "until", "launch", "log_with"):
        if value := arguments.get(name):
            options += [f"--{name.replace('_', '-')}", str(value)]
    for change in changes:
        options += ["--set", change]
    options += ["--store", store] if store else []
    dashed = any(name.startswith("-") for name in methods)
    words = [*options, "--", *methods] if dashed else [*methods, *options]
    return " ".join(map(_quoted, ["dadpo-bench", "run", *words]))


def _own_judge(recipe: str) -> str | None:
    """Of a recipe that is shipped: its judge need not be said. A file may have changed since."""
    path = shipped().get(recipe)
    judge = yaml.safe_load(path.read_text(encoding="utf-8")).get("judge") if path else None
    return judge if isinstance(judge, str) else None


def _quoted(word: str) -> str:
    """For a shell; what cannot be printed stands as its escape in bash's $'…', so that it stays in the text."""
    if word.isprintable():
        return shlex.quote(word)
    text = re.sub(r"[\\']", r"\\\g<0>", word)
    return "$'" + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text) + "'"
