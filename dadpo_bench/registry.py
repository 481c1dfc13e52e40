"""`Registry[T]`: named, typed, lazily loaded entries found by entry points, with "did you mean".

An entry is light: a name, a summary and dotted strings. What it points to is imported by `load`.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from dadpo_bench.errors import UserError
from dadpo_bench.types import JsonObject, Value


class Entry(Value):
    """What every registered thing says of itself without importing anything heavy."""

    name: str
    summary: str
    """One line for `dadpo-bench list`."""
    target: str
    """`package.module:attribute` of the thing itself."""
    config: str = ""
    """`package.module:attribute` of its pydantic config class, or of a function from the settings that are given to
    that class; empty when it has no settings."""
    source: str = ""
    """Paper, data set or program it comes from."""


class SourceFile(Value):
    """A file of somebody's repository that a task is read from."""

    path: str
    """In the repository; `*` stands for anything."""
    aliases: tuple[str, ...] = ()
    """Other names by which a copy of it is known."""
    required: bool = True
    """False for what a task is richer with: the baseline's answers."""


class TaskEntry(Entry):
    """A set of prompts. `target` is called with a split's name and gives its prompts; of a task with a `repository`,
    with the paths of that split's `files`, as they are listed, and the split, and gives `tasks.TaskData`.
    """

    domain: Literal["in", "out"]
    """Whether the training prompts are of its kind."""
    licence: str
    """Of the prompts, as their authors state it; empty where that was not seen."""
    splits: tuple[str, ...]
    """Of `train`, `validation` and `heldout`, those it has."""
    prompts: Mapping[str, int] = {}
    """By split: how many it has; a split whose number was not seen is left out."""
    turns: int = 1
    """User turns of a prompt, at most."""
    baseline: str = ""
    """The reference system that its authors compare with; empty where there is none."""
    judge_mode: Literal["", "pairwise", "single-answer"] = ""
    """How its authors have it judged: against the baseline, or one answer at a time."""
    temperatures: Mapping[str, float] = {}
    """By category: at which temperature its authors have it answered; empty where they do not say."""
    length_controlled: bool = False
    """Whether its authors report a win rate from which the effect of length is taken."""
    repository: str = ""
    """Where its files come from: `hub:OWNER/NAME` (a data set) or `github:OWNER/NAME`; empty for what is installed."""
    files: Mapping[str, tuple[SourceFile, ...]] = {}
    """By split: what is read from the repository."""


class MethodEntry(Entry):
    """A way of training a student."""

    signals: tuple[str, ...] = ()
    """What it needs of frozen models: `reference`, `teacher` (sequence log-probs), `teacher_logits`."""
    data: Literal["responses", "pairs"] = "responses"
    """The teacher's responses alone, or each preferred to the dSFT student's own."""
    start: Literal["student", "dsft"] = Field(
        default_factory=lambda given: "dsft" if given.get("data") == "pairs" else "student"
    )
    """The model it trains: the bare student, or the dSFT student, where learning from pairs begins."""
    rollouts: bool = False
    """Whether it learns from its own replies, drawn before each step: of at most its setting `max_new_tokens`, by
    `Sampling`'s other defaults."""

    def shards(self, settings: Mapping[str, Any]) -> bool:
        """Whether processes may share its weights out: neither adapters nor a policy that draws can be."""
        return not (self.rollouts or settings.get("lora"))


class JudgeEntry(Entry):
    """A way of telling which response is better."""

    kind: Literal["pairwise", "pointwise"]
    """A verdict for each ordered pair, or a rating for each response."""
    argument: str = ""
    """Config field that `NAME:VALUE` sets, e.g. `chat:gpt-4o`."""
    proxy: bool = False
    """True where its numbers are no judgment of preference and must be labelled so."""
    teacher: bool = False
    """Whether it computes with the recipe's teacher, unless its config's `model` names another."""


class BackendEntry(Entry):
    """Who answers a judge's questions: a model, and the way to it."""

    answering: str = ""
    """`package.module:attribute` of the same as a contestant (`types.Answerer`), made of its settings; empty where it
    answers judges alone."""
    scoring: str = ""
    """The same as a frozen model that gives the log-probs of token ids (`types.TokenScorer`); empty where it cannot."""


class ParserEntry(Entry):
    """How a judge's answer is read."""

    kind: Literal["pairwise", "pointwise"]
    """A preference between two responses, or a rating of one."""
    logprobs: bool = False
    """Whether it reads the log-probs of the answer's tokens."""


class TemplateEntry(Entry):
    """A judge prompt; `target` is `package:file`, the TOML file in that package."""

    kind: Literal["pairwise", "pointwise"]
    """As of the judge that asks it."""


E = TypeVar("E", bound=Entry)


def resolve(target: str) -> Any:
    """Import `package.module:attribute`."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def packaged(target: str) -> bytes:
    """The content of `package:file`."""
    package, _, file = target.partition(":")
    return (files(package) / file).read_bytes()


def config_class(entry: Entry, values: JsonObject) -> type[BaseModel]:
    """The config class of an entry that has settings, given some of them."""
    found = resolve(entry.config)
    config: type[BaseModel] = found if isinstance(found, type) else found(values)
    return config


class Registry(Generic[E]):
    """Entries of one kind, found in the entry-point group `dadpo_bench.<kind>`."""

    def __init__(self, kind: str, entry_type: type[E]) -> None:
        self.kind = kind
        self._type = entry_type

    @property
    def noun(self) -> str:
        """What one entry is."""
        return self.kind.removesuffix("s")

    @cached_property
    def _found(self) -> dict[str, Any]:
        return {point.name: point for point in sorted(entry_points(group=f"dadpo_bench.{self.kind}"))}

    def names(self) -> list[str]:
        """Registered names, sorted."""
        return sorted(self._found)

    def __iter__(self) -> Iterator[E]:
        return (self[name] for name in self.names())

    def __getitem__(self, name: str) -> E:
        """The entry of that name; raises `UserError` with near names where there is none."""
        if name not in self._found:
            raise UserError(unknown(self.noun, name, self.names()))
        entry = self._found[name].load()
        if not isinstance(entry, self._type):
            raise UserError(f"{self.noun} '{name}': entry point {self._found[name].value} is no {self._type.__name__}")
        return entry

    def load(self, name: str) -> Any:
        """Import what the entry points to."""
        return resolve(self[name].target)


def unknown(kind: str, name: str, known: list[str]) -> str:
    """The one sentence for every unknown name."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
    return f"unknown {kind} '{name}'; {hint}"


tasks = Registry("tasks", TaskEntry)
methods = Registry("methods", MethodEntry)
judges = Registry("judges", JudgeEntry)
backends = Registry("backends", BackendEntry)
templates = Registry("templates", TemplateEntry)
parsers = Registry("parsers", ParserEntry)
