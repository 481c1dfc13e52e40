"""A board's columns as tables of pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dadpo_bench.leaderboard.columns import Column, filled
from dadpo_bench.leaderboard.facts import Cells


def table(columns: Sequence[Column], rows: Sequence[Cells]) -> dict[str, Any] | None:
    """Header and rows of what says something of somebody; None without rows."""
    if not rows:
        return None
    header, cells = filled(columns, rows)
    return {"header": header, "rows": cells}
