"""Anybody's data set: files or rows whose columns name prompts in one of the field's ways."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dadpo_bench.errors import UserError
from dadpo_bench.recipe import explain
from dadpo_bench.records import read_records
from dadpo_bench.tasks.data_set import Read, TaskData, assembled, checked, field, shape, system_text, user_turns
from dadpo_bench.types import Prompt

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
ACCEPTED = "turns, messages or conversations (user turns are taken), prompt, instruction (with input), question"

_IDS = ("id", "prompt_id", "question_id", "uid", "session_id")
_CATEGORIES = ("category", "dataset", "source")


def read_path(path: Path) -> TaskData:
    """The prompts of a file, or of all files of a folder in order of their names.

    A file in our own form (`turns`) may not repeat a prompt; elsewhere repeated ones are left out and counted.

    Raises `UserError` for what cannot be read, by file and line, and for columns that are not understood.
    """
    data = from_records(record for file in _files(path) for record in read_records(file, "prompts file"))
    if not data.prompts:
        raise UserError(f"prompts file {path} holds no prompt")
    return data


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if path.suffix not in SUFFIXES:
            raise UserError(f"prompts file {path}: not one of {', '.join(SUFFIXES)}")
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not found:
        raise UserError(f"{path} holds no {', '.join(SUFFIXES)} file")
    return found


def from_records(records: Iterable[tuple[str, Any]]) -> TaskData:
    """The prompts of (place, record) pairs. Raises `UserError` as `to_prompt` does, and for our own lines repeated."""
    own: set[tuple[str, str]] = set()

    def read() -> Iterator[Read]:
        for number, (place, record) in enumerate(records, 1):
            prompt = to_prompt(record, place, number)
            if "turns" in record:
                once = (place.rpartition(", ")[0], prompt.key)
                if once in own:
                    raise UserError(f"{place}: a prompt occurs twice")
                own.add(once)
            yield Read(prompt)

    return assembled(read())


def to_prompt(record: Any, place: str, number: int) -> Prompt:
    """A record of any of the `ACCEPTED` forms; where it has no id, its number in the data set is one.

    Raises `UserError` for every other, naming its columns.
    """
    if not isinstance(record, Mapping) or "turns" in record:
        return own_prompt(record, place)
    category = next((record[name] for name in _CATEGORIES if isinstance(record.get(name), str)), "")
    given = next((record[name] for name in _IDS if isinstance(record.get(name), str | int)), number)
    turns, system = _asked(record, place)
    return checked(Prompt(id=str(given), turns=turns, category=category, system=system), place)


def own_prompt(record: Any, place: str) -> Prompt:
    """{"id", "turns": […], "category"?, "system"?, "reference"?, "checklist"?}, and nothing else."""
    try:
        return checked(Prompt.model_validate(record), place)
    except ValidationError as error:
        raise UserError(f"{place}: {explain(error, '')}") from error


def _asked(record: Mapping[str, Any], place: str) -> tuple[tuple[str, ...], str]:
    """The user's turns, and the system text."""
    for name in ("messages", "conversations", "conversation"):
        if record.get(name) is not None:
            turns = tuple(user_turns(record[name], place))
            return turns, system_text(record[name])
    if isinstance(record.get("prompt"), list):
        return tuple(user_turns(record["prompt"], place)), ""
    for name in ("prompt", "instruction", "question"):
        if record.get(name) is not None:
            text = field(record, name, place)
            more = record.get("input") if name == "instruction" else None
            return (f"{text}\n\n{more}" if isinstance(more, str) and more.strip() else text,), ""
    raise UserError(f"{place}: no prompt is found; {shape(record)}; accepted are {ACCEPTED}")
