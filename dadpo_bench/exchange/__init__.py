"""In and out: other programs' files as contestants, verdicts and ratings of the store, and back.

One module a family of formats; each speaks in parcels and knows no store. `stored` puts parcels into one and takes
them out.
"""

from __future__ import annotations

from collections.abc import Mapping

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.exchange import alpaca_eval, arena_hard, mt_bench, own
from dadpo_bench.exchange.parcel import Format, JudgedBy, Judgment, Parcel, Wanted
from dadpo_bench.exchange.reading import named_by

__all__ = ["FORMATS", "Format", "JudgedBy", "Judgment", "Parcel", "Wanted", "format_named", "wanted"]

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


def wanted(task: str | None, baseline: str | None) -> Wanted:
    """Raises `UserError` where a name is none."""
    for option, name in (("--task", task), ("--baseline", baseline)):
        if name is not None:
            named_by(option, name)
    return Wanted(task=task, baseline=baseline)
