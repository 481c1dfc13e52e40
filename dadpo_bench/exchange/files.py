"""Records into files: .json one list, .jsonl a record a line; their names are data and stay within the folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dadpo_bench.errors import UserError

_LONGEST = 200
"""Bytes of a file's name; file systems take 255."""


def write_files(folder: Path, files: Iterable[tuple[Sequence[str], Sequence[Any]]]) -> list[Path]:
    """Write each (path's parts, records); returns the paths.

    Raises `UserError` where there is nothing to write, two names become one path, or the folder cannot be written.
    """
    found: dict[Path, Sequence[Any]] = {}
    for parts, records in files:
        path = folder.joinpath(*map(_plain, parts))
        if path in found:
            raise UserError(f"two files would be called {path}; choose with --judge or --contestant")
        found[path] = records
    if not found:
        raise UserError("nothing of that format in the store: no judge of that kind, or nobody judged")
    for path, records in found.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_text(path, records), encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
    return list(found)


def _plain(part: str) -> str:
    """A name of a judge or contestant as a file's: no separator, nothing hidden, none of a path's own words."""
    suffix = next((ending for ending in (".json", ".jsonl") if part.endswith(ending)), "")
    stem = part.removesuffix(suffix)
    plain = re.sub(r"[^\w.+-]", "_", stem).lstrip(".").encode()[:_LONGEST].decode(errors="ignore")
    return (plain or "_") + suffix


def _text(path: Path, records: Sequence[Any]) -> str:
    if path.suffix == ".json":
        return json.dumps(records, ensure_ascii=False, indent=1) + "\n"
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
