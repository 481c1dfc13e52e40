"""A board's columns as tables of pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dadpo_bench.leaderboard.facts import Cells
from dadpo_bench.leaderboard.markdown import Column, filled


def table(columns: Sequence[Column], rows: Sequence[Cells]) -> dict[str, Any] | None:
    """Header and rows of what says something of somebody; None without rows."""
    if not rows:
        return None
    header, cells = filled(columns, rows)
    return {"header": header, "rows": cells}


_NAMED = {"contestant", "task", "category"}


def plain(columns: Sequence[Column]) -> list[Column]:
    """Columns without Markdown's escapes and stars: pages have their own."""
    return [(name, _name_of(name) if name in _NAMED else _unstarred(cell)) for name, cell in columns]


def _name_of(column: str) -> Callable[[Cells], str]:
    return lambda row: str(row[column] or "–")


def _unstarred(cell: Callable[[Cells], str]) -> Callable[[Cells], str]:
    return lambda row: cell(row).strip("*")
