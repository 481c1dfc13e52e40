"""In and out: other programs' files as contestants, verdicts and ratings of the store, and back.

One module a family of formats; each speaks in parcels and knows no store. `stored` puts parcels into one and takes
them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.exchange import alpaca_eval, arena_hard, mt_bench, own
from dadpo_bench.exchange.parcel import Format, JudgedBy, Judgment, Parcel, Wanted
from dadpo_bench.exchange.reading import Unlike, looks_like, named_by

__all__ = ["FORMATS", "Format", "JudgedBy", "Judgment", "Parcel", "Wanted", "format_named", "read", "wanted"]

FORMATS: Mapping[str, Format] = {
    "alpaca-eval-outputs": alpaca_eval.OUTPUTS,
    "alpaca-eval-annotations": alpaca_eval.ANNOTATIONS,
    "mt-bench-answers": mt_bench.ANSWERS,
    "mt-bench-judgments": mt_bench.JUDGMENTS,
    "arena-hard-answers": arena_hard.ANSWERS,
    "arena-hard-judgments": arena_hard.JUDGMENTS,
    "jsonl": own.JSONL,
}


def format_named(name: str) -> Format:
    """Raises `UserError` with near names where there is none."""
    if name not in FORMATS:
        raise UserError(registry.unknown("format", name, sorted(FORMATS)))
    return FORMATS[name]


def read(format: str, files: Sequence[Path], wanted: Wanted) -> Parcel:
    """What files of that format hold.

    Raises `UserError` by file and line where it is malformed, naming the format that it is of, if it is of another.
    """
    try:
        return format_named(format).read(files, wanted)
    except Unlike as error:
        if (other := _format_of(error.record)) not in (None, format):
            raise UserError(f"{error.place}: no record of {format}; {looks_like(other)}") from error
        raise


def _format_of(record: Any) -> str | None:
    """The format that has such records; None where several might, or none does."""
    fields = record if isinstance(record, dict) else {}
    kinds = (
        (name, kind) for name, known in FORMATS.items() for field, kind in known.records.items() if field in fields
    )
    return next((name for name, kind in kinds if _is_one(kind, record)), None)


def _is_one(kind: type[BaseModel], record: Any) -> bool:
    try:
        kind.model_validate(record)
    except ValidationError:
        return False
    return True


def wanted(task: str | None, baseline: str | None) -> Wanted:
    """Raises `UserError` where a name is none."""
    for option, name in (("--task", task), ("--baseline", baseline)):
        if name is not None:
            named_by(option, name)
    return Wanted(task=task, baseline=baseline)
