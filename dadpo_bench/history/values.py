"""Settings and figures as a store's JSON columns hold them, which somebody else may have written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

_DEEPEST = 20
"""Levels of settings that have keys of their own."""


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted key, without those that are null or empty."""
    return {".".join(path): value for path, value in by_path(settings)}


def by_path(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The parts of nested settings that are not null or empty, by their keys from the outermost one on."""
    if isinstance(value, Mapping) and len(path) < _DEEPEST:
        for key, part in value.items():
            yield from by_path(part, (*path, str(key)))
    elif value is not None:
        yield path, value


def finite(value: Any) -> Any:
    """The same without what JSON has no word for: numbers that are none become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value


def in_utc(moment: datetime) -> datetime:
    """SQLite keeps no zone: what it holds is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def mapping(value: Any) -> dict[str, Any]:
    """A JSON column of somebody else's store need be none."""
    return value if isinstance(value, dict) else {}


def texts(value: Any) -> tuple[str, ...]:
    """Of a JSON list, its parts as they stand; of anything else none."""
    return tuple(v if isinstance(v, str) else json.dumps(v) for v in value) if isinstance(value, list | tuple) else ()


def number(value: Any) -> float | None:
    """A number, NaN where it is too large for one; None of anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.nan


def count(value: Any) -> int | None:
    """A whole number; None of anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
