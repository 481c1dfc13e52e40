"""Records of a data file: JSON Lines, a JSON list, Parquet or CSV, each with the place to name where it is wrong."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dadpo_bench.errors import UserError


def read_records(path: Path, what: str) -> Iterator[tuple[str, Any]]:
    """(place, record) of every record; `what` says in errors what the file should be.

    Raises `UserError` where the file cannot be read, is not what its name says, or holds half a surrogate pair.
    """
    if path.suffix == ".parquet":
        yield from _parquet(path, what)
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path}: {getattr(error, 'strerror', None) or error}") from error
    if path.suffix == ".csv":
        yield from _csv(text, path)
        return
    if path.suffix == ".json":
        content = _parse(text, str(path))
        if not isinstance(content, list):
            raise UserError(f"{path}: a .json file holds one list of records; write one record a line in a .jsonl file")
        whole = _unescaped(text)
        for number, record in enumerate(content, 1):
            place = f"{path}, record {number}"
            yield place if whole else _whole(record, place), record
        return
    # Not splitlines: U+2028 inside a JSON string is text, not a line's end.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{path}, line {number}"
            record = _parse(line, place)
            yield place if _unescaped(line) else _whole(record, place), record


def _unescaped(text: str) -> bool:
    """Whether no character beyond U+D7FF is escaped: half a surrogate pair can come in no other way."""
    return "\\ud" not in text and "\\uD" not in text


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # of a number of thousands of digits no JSONDecodeError
        deep = "nested too deeply" if isinstance(error, RecursionError) else "a number of too many digits"
        reason = getattr(error, "msg", deep)
        raise UserError(f"{place}: not valid JSON ({reason})") from error


def _whole(record: Any, place: str) -> str:
    """The place, where no tokenizer or database will choke on the record: JSON may escape half a surrogate pair."""
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: a \\ud800 to \\udfff stands alone, which is no character") from error
    return place


def _csv(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of RFC 4180's form, by the names of the first row. Quoted fields may hold line ends."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # the default refuses long prompts
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    begins, names = 1, None
    try:
        for row in rows:
            place, begins = f"{path}, line {begins}", rows.line_num + 1
            if names is None:
                names = row
                if twice := next((name for name in names if names.count(name) > 1), None):
                    raise UserError(f"{place}: two columns are called '{twice}'")
            elif row:
                if len(row) != len(names):
                    raise UserError(f"{place}: {len(row)} fields where the first line names {len(names)}")
                yield place, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}, line {begins}: not valid CSV ({error})") from error


def _parquet(path: Path, what: str) -> Iterator[tuple[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{what} {path}: {getattr(error, 'strerror', None) or error}") from error
    for number, record in enumerate(table.to_pylist(), 1):
        yield f"{path}, row {number}", record
