"""Records into files: .json one list, .jsonl a record a line; their names are data and stay within the folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dadpo_bench.errors import UserError


def write_files(folder: Path, files: Iterable[tuple[str, Sequence[Any]]]) -> list[Path]:
    """Write each (name, records); returns the paths.

    Raises `UserError` where there is nothing to write, two names become one path, or the folder cannot be written.
    """
    written: list[Path] = []
    for name, records in files:
        path = folder.joinpath(*(_plain(part) for part in name.split("/")))
        if path in written:
            raise UserError(f"two files would be called {path}; choose with --judge or --contestant")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_text(path, records), encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        written.append(path)
    if not written:
        raise UserError("nothing of that format in the store: no judge of that kind, or nobody judged")
    return written


def _plain(part: str) -> str:
    """A name of a judge or contestant as a file's: no separator, nothing hidden, none of a path's own words."""
    return re.sub(r"[^\w.+-]", "_", part).lstrip(".")[:150] or "_"


def _text(path: Path, records: Sequence[Any]) -> str:
    if path.suffix == ".json":
        return json.dumps(records, ensure_ascii=False, indent=1) + "\n"
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
