"""Rows for machines: CSV beside JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from dadpo_bench.leaderboard.facts import Cells

_ACTIVE = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula where a cell's text begins with it."""


def as_csv(rows: Sequence[Cells]) -> str:
    """A header and a line a row; null is empty, a list's members stand between spaces, names stay text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header = list(rows[0]) if rows else []
    writer.writerow(header)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in header])
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    if isinstance(value, str) and value.startswith(_ACTIVE):
        return f"'{value}"
    return value
