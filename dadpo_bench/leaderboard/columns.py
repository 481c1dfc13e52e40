"""A board's columns as plain text: what Markdown and pages show is made of them, each escaped as it must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dadpo_bench import scoring
from dadpo_bench.leaderboard.facts import Cells

Column = tuple[str, Callable[[Cells], str]]

CONTESTANT: Column = ("contestant", lambda r: r["contestant"])
WIN_RATE: Column = ("win rate", lambda r: _with_interval(r["win_rate"], r["ci_low"], r["ci_high"]))

SCORES: tuple[Column, ...] = (
    ("rank", lambda r: str(r["rank"] or "–")),
    CONTESTANT,
    ("category", lambda r: r["category"] or "–"),
    WIN_RATE,
    (
        "length-controlled",
        lambda r: (
            _with_interval(r["length_controlled_win_rate"], r["length_controlled_low"], r["length_controlled_high"])
            + (", by given coefficients" if r["length_control"] == "given coefficients" else "")
        ),
    ),
    (
        "corrected by labels",
        lambda r: (
            _with_interval(r["corrected_win_rate"], r["corrected_low"], r["corrected_high"])
            + (f" of {r['corrected_labels']}" if r["corrected_labels"] else "")
        ),
    ),
    ("rating", lambda r: _rating(r, "rating")),
    ("rating at equal style", lambda r: _rating(r, "style_rating")),
    ("score", lambda r: _with_interval(r["single_score"], r["single_low"], r["single_high"], 2)),
    ("by turn", lambda r: " / ".join(number(v, 2) for v in r["single_by_turn"]) or "–"),
    ("win / tie / loss", lambda r: _shares(r)),
    ("preference rate", lambda r: number(r["preference_rate"], sign=True)),
    ("flip rate", lambda r: number(r["flip_rate"])),
    ("prompts", lambda r: str(r["prompts"] or r["single_prompts"] or "–")),
    ("unscored", lambda r: str(r["unscored"]) if r["win_rate"] is not None else "–"),
    ("length", lambda r: number(r["mean_length"], 0)),
)
LOOKS: tuple[Column, ...] = (
    CONTESTANT,
    ("task", lambda r: r["task"]),
    ("std. error", lambda r: number(r["standard_error"])),
    ("seeds", lambda r: str(r["seeds"]) if r["win_rate"] is not None else "–"),
    ("win rate by seed", lambda r: ", ".join(number(v) for v in r["per_seed"]) if len(r["per_seed"]) > 1 else "–"),
    ("cut", lambda r: number(r["cut_share"])),
    ("repetition", lambda r: number(r["repetition"])),
    ("KL from teacher", lambda r: number(r["kl_from_teacher"], 3)),
    ("KL to teacher", lambda r: number(r["kl_to_teacher"], 3)),
)
CANARY: tuple[Column, ...] = (
    CONTESTANT,
    WIN_RATE,
    *(column for column in SCORES if column[0] in ("prompts", "unscored", "length")),
    ("loses clearly", lambda r: "yes" if scoring.loses_clearly(r["ci_high"]) else "no"),
)


def _with_interval(value: float | None, low: float | None, high: float | None, digits: int = 1) -> str:
    between = f" ({number(low, digits)} to {number(high, digits)})"
    return number(value, digits) + (between if low is not None and high is not None else "")


def _rating(row: Cells, name: str) -> str:
    """An unbounded rating or end is shown as such."""
    standing = row[f"{name}_standing"]
    if standing in ("", "undetermined"):
        return "–"
    low, high = number(row[f"{name}_low"], 0), number(row[f"{name}_high"], 0)
    low, high = ("−∞" if row[f"{name}_low"] is None else low), ("∞" if row[f"{name}_high"] is None else high)
    if row[name] is None:
        return f"{'∞' if standing == 'above' else '−∞'} ({low} to {high})"
    return number(row[name], 0) + (f" ({low} to {high})" if low != high else "")


def _shares(row: Cells) -> str:
    shares = [number(row[f"{kind}_share"]) for kind in ("win", "tie", "loss")]
    return "–" if row["win_share"] is None else " / ".join(shares)


def filled(columns: Sequence[Column], rows: Sequence[Cells]) -> tuple[list[str], list[tuple[str, ...]]]:
    """(header, rows) without the columns that say nothing of anybody."""
    cells = [(name, [cell(row) for row in rows]) for name, cell in columns]
    said = [(name, column) for name, column in cells if set(column) - {"–"}]
    return [name for name, _ in said], list(zip(*(column for _, column in said), strict=True))


def number(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """A figure as boards show it; an en dash where there is none."""
    if value is None:
        return "–"
    # Sums in another order differ in the last bits: they must not decide between 6.2 and 6.3, or +0.0 and −0.0.
    value = round(value, 9) + 0.0
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")


def chance(p_value: float) -> str:
    """A p-value: one that rounds to 0 is none."""
    return number(p_value, 3) if p_value >= 0.0005 else "< 0.001"
