"""What files of other programs hold, in the bench's own words: a task, responses, and what judges said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.exchange.reading import named_by
from dadpo_bench.tasks import Task
from dadpo_bench.types import JsonObject, Order, Rating, Response, Verdict


class Judgment(NamedTuple):
    """What a judge said of one contestant's response to a prompt."""

    contestant: str
    prompt: str
    """Its key."""
    said: Verdict | Rating
    order: Order = "ab"
    """Which response a pairwise judge saw first; says nothing of a rating."""
    asked: datetime | None = None
    """When, in UTC, where that is known."""


class JudgedBy(NamedTuple):
    """Everything that one judge said."""

    name: str
    """As boards show it."""
    kind: Literal["pairwise", "pointwise"]
    identity: JsonObject
    """All that is known to decide its verdicts: its key is made of it."""
    judgments: Sequence[Judgment]
    proxy: bool = False
    """Whether its numbers are no judgment of preference."""


class Who(NamedTuple):
    """A contestant as boards know it, where that is more than what a parcel calls it."""

    name: str
    """Training seeds of one name and equal settings are one row."""
    trained: bool = False
    """Whether it is a method's checkpoint."""
    seed: int | None = None
    settings: JsonObject = MappingProxyType({})
    kl: tuple[float, float] | None = None
    """From the teacher and to it, nats a token."""


class Parcel(NamedTuple):
    """Contestants on one task, against one baseline."""

    task: Task
    responses: Mapping[str, Mapping[str, Response]]
    """By contestant's name and prompt's key; the baseline's among them."""
    baseline: str = ""
    """Whom verdicts compare with; empty where responses are only rated."""
    judged: Sequence[JudgedBy] = ()
    remarks: Sequence[str] = ()
    """Where what was read anew differs from what the file says, a line each."""
    known: Mapping[str, Who] = MappingProxyType({})
    """By contestant's name here; of whom nothing else is known, that is its name on boards."""

    def who(self, contestant: str) -> Who:
        """What boards know of it."""
        return self.known.get(contestant, Who(contestant))

    @property
    def ids(self) -> dict[str, str]:
        """By prompt's key: its id where no other prompt has that, else its key."""
        times = Counter(p.id for p in self.task.prompts)
        return {p.key: p.id if p.id and times[p.id] == 1 else p.key for p in self.task.prompts}

    def renamed(self, names: Mapping[str, str]) -> Parcel:
        """With other names of contestants on boards, old → new.

        Raises `UserError` for a name that no contestant has, that another has already, or that is none.
        """
        called = {one: self.who(one).name for one in (*self.responses, self.baseline) if one}
        if unknown := set(names) - set(called.values()):
            raise UserError(f"--rename: {registry.unknown('contestant', min(unknown), sorted(called.values()))}")
        new = {name: named_by("--rename", names.get(name, name)) for name in called.values()}
        if len(set(new.values())) < len(new):
            raise UserError("--rename: two contestants would have the same name")
        return self._replace(known={one: self.who(one)._replace(name=new[name]) for one, name in called.items()})


class Wanted(NamedTuple):
    """What a person says of files that do not say it themselves, and hears while they are read."""

    task: str | None = None
    """The task's name, where the files' format has no better one."""
    baseline: str | None = None
    """Whom the contestants are compared with, where the files name several or nobody."""
    told: Callable[[], None] = lambda: None
    """Called as each file has been read."""


class Format(NamedTuple):
    """A file format, both ways."""

    summary: str
    """One line for `--help`."""
    read: Callable[[Sequence[Path], Wanted], Parcel]
    """Raises `UserError` by file and line where it is malformed."""
    write: Callable[[Parcel], Iterator[tuple[tuple[str, ...], Any]]]
    """(a path's parts, its records), .json files one list and .jsonl files a record a line."""
    records: Mapping[str, type[BaseModel]]
    """Its own records, which no other format has, each by a field that tells it."""
