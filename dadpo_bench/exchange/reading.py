"""Records of several files, checked by a pydantic model each, with the place to name where one is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from dadpo_bench.errors import UserError
from dadpo_bench.recipe import explain
from dadpo_bench.records import read_records
from dadpo_bench.tasks.data_set import ID, LABEL

R = TypeVar("R", bound="Record")


def named(text: str) -> str:
    """A name, as boards, file names and terminals can show it. Raises `ValueError` for one that is none."""
    if not 1 <= len(text) <= 200 or not text.isprintable() or text.isspace():
        raise ValueError("a name has 1 to 200 characters, all of them printable")
    return text


def named_by(option: str, text: str) -> str:
    """The name that an option gives. Raises `UserError` where it is none."""
    try:
        return named(text)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from error


Name = Annotated[str, AfterValidator(named)]
"""Of a contestant, a judge or a task."""
Id = Annotated[str, Field(min_length=1, max_length=ID)]
"""Of a prompt."""
Label = Annotated[str, Field(max_length=LABEL)]
"""A prompt's category."""


class Unlike(UserError):
    """A record is not as the format that was named has them."""

    def __init__(self, said: str, place: str, record: Any) -> None:
        super().__init__(said)
        self.place, self.record = place, record


class Record(BaseModel):
    """A record of another program's file; what else it holds is not kept."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, coerce_numbers_to_str=True)


def records(
    paths: Sequence[Path], told: Callable[[], None], what: str, kinds: Mapping[str, type[R]]
) -> Iterator[tuple[str, R]]:
    """(place, record) of every file, each told when it is read; `kinds` tells a record's kind by a field of its own.

    Raises `UserError` for a file that cannot be read, `Unlike` for a record of no kind, or not as its kind should be.
    """
    for path in paths:
        for place, record in read_records(path, what):
            names = set(record) if isinstance(record, dict) else set()
            kind = next((kind for field, kind in kinds.items() if field in names), None)
            if kind is None:
                raise Unlike(f"{place}: nothing of {what} (a record has one of: {', '.join(kinds)})", place, record)
            yield place, checked(kind, record, place, what)
        told()


def checked(kind: type[R], record: Any, place: str, what: str) -> R:
    """The record as its kind reads it; raises `Unlike`, and `UserError` for what no database keeps."""
    try:
        found = kind.model_validate(record)
    except ValidationError as error:
        raise Unlike(f"{place}: nothing of {what} ({explain(error, '')})", place, record) from error
    if "\\u0000" in found.model_dump_json().replace("\\\\", ""):  # but for a backslash before u0000
        raise UserError(f"{place}: it holds a NUL (\\u0000), which is no text")
    return found


def looks_like(format: str) -> str:
    """What is said of files that another format would read."""
    return f"it looks like {format}: `dadpo-bench import {format}`"


def nothing(what: str, paths: Sequence[Path], other: str = "") -> UserError:
    """What is raised where files hold none of what was wanted, but what the `other` format reads, if that is named."""
    return UserError(f"{', '.join(map(str, paths))}: no {what}" + (f"; {looks_like(other)}" if other else ""))
