"""Column types that hold the same on SQLite and on PostgreSQL: moments in UTC, texts of any length and character."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, String, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

_MARK = "\ue000"
"""A private-use character; behind it, what stands for a character that PostgreSQL does not take, or for itself."""
_SHUT = {"\0": f"{_MARK}0", _MARK: f"{_MARK}1"}
_OPEN = {shut: character for character, shut in _SHUT.items()}
_TO_SHUT, _TO_OPEN = re.compile(f"[\0{_MARK}]"), re.compile(f"{_MARK}[01]")

_NO_NUMBER = "\ue000float"
"""Key of an object that stands for a number which JSON has no word for."""


class Moment(TypeDecorator[datetime]):
    """UTC in and out: SQLite keeps no zone, and a server answers in the zone of the session."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database; without a zone it is UTC."""
        return _in_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        return _in_utc(value)


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment and (moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC))


class _Escaped(TypeDecorator[str]):
    """PostgreSQL's text, which takes no NUL: what a model wrote comes back as it was."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value and _TO_SHUT.sub(lambda found: _SHUT[found[0]], value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return value if not value or _MARK not in value else _TO_OPEN.sub(lambda found: _OPEN[found[0]], value)


def words(length: int | None = None) -> TypeEngine[str]:
    """Text that people, models or endpoints wrote; SQLite never held anybody to a length, so no server does."""
    plain: TypeEngine[str] = Text() if length is None else String(length)
    return plain.with_variant(_Escaped(), "postgresql")


def write_json(value: Any) -> str:
    """JSON as PostgreSQL takes it: a metric that is NaN or infinite is written as an object."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_worded(value), allow_nan=False)


def _worded(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_NO_NUMBER: str(value)}
    if isinstance(value, dict):
        return {key: _worded(part) for key, part in value.items()}
    return [_worded(part) for part in value] if isinstance(value, list | tuple) else value


def read_json(text: str | bytes) -> Any:
    """What `write_json` was given."""
    return json.loads(text, object_hook=_numbered)


def _numbered(found: dict[str, Any]) -> Any:
    return float(found[_NO_NUMBER]) if found.keys() == {_NO_NUMBER} else found
