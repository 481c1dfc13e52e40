"""What files of other programs hold, in the bench's own words: a task, responses, and what judges said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

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

    @property
    def ids(self) -> dict[str, str]:
        """By prompt's key: its id where no other prompt has that, else its key."""
        times = Counter(p.id for p in self.task.prompts)
        return {p.key: p.id if p.id and times[p.id] == 1 else p.key for p in self.task.prompts}

    def renamed(self, names: Mapping[str, str]) -> Parcel:
        """With other names of contestants, old → new.

        Raises `UserError` for a name that no contestant has, that another has already, or that is none.
        """
        if unknown := set(names) - set(self.responses):
            raise UserError(f"--rename: {registry.unknown('contestant', min(unknown), sorted(self.responses))}")
        new = {name: named_by("--rename", names.get(name, name)) for name in self.responses}
        if len(set(new.values())) < len(new):
            raise UserError("--rename: two contestants would have the same name")
        judged = [
            by._replace(judgments=[said._replace(contestant=new[said.contestant]) for said in by.judgments])
            for by in self.judged
        ]
        responses = {new[name]: given for name, given in self.responses.items()}
        return self._replace(responses=responses, judged=judged, baseline=new.get(self.baseline, self.baseline))


class Wanted(NamedTuple):
    """What a person says of files that do not say it themselves."""

    task: str | None = None
    """The task's name, where the files' format has no better one."""
    baseline: str | None = None
    """Whom the contestants are compared with, where the files name several or nobody."""


class Format(NamedTuple):
    """A file format, both ways."""

    summary: str
    """One line for `--help`."""
    read: Callable[[Sequence[Path], Wanted], Parcel]
    """Raises `UserError` by file and line where it is malformed."""
    write: Callable[[Parcel], Iterator[tuple[tuple[str, ...], Any]]]
    """(a path's parts, its records), .json files one list and .jsonl files a record a line."""
