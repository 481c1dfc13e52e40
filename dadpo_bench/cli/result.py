"""What `run` ends with: the rows on screen, the reference rows beside them, and where to look."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from dadpo_bench.cli.options import relative
from dadpo_bench.leaderboard import Section, number, sections
from dadpo_bench.store import REFERENCE, Store, open_store, schema


def show_result(console: Console, store: Store, protocol_key: str, judge: str, *, as_json: bool) -> None:
    """The section that was just scored, then the reference's rows of the same protocol where they are at hand."""
    own = _sections(store, protocol_key, judge)
    reference = _reference(store, protocol_key, judge)
    if as_json:
        typer.echo(json.dumps({"rows": _json(own), "reference": _json(reference)}, indent=1))
        return
    for section in own:
        console.print()
        console.print(_table(section, [s for s in reference if s.judge == section.judge]))
        for warning in section.warnings:
            console.print(f"  {warning}", markup=False, highlight=False)
    console.print()
    for label, path in (("board", store.board), ("store", Path(store.name)), ("checkpoints", store.artefacts)):
        console.print(f"{label:<12} {relative(path)}", markup=False, highlight=False, soft_wrap=True)
    for name, place in _checkpoints(store, protocol_key):
        console.print(f"  {name:<10} {relative(place)}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        "\nnext: dadpo-bench run sft kd dpo dpo-matched dadpo --seeds 3   all methods, with seed variance\n"
        "      dadpo-bench check                                     compare these rows with the reference",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _sections(store: Store, protocol_key: str, judge: str) -> list[Section]:
    with store.read() as session:
        return [s for s in sections(session) if s.protocol_key == protocol_key and s.judge == judge]


def _reference(store: Store, protocol_key: str, judge: str) -> list[Section]:
    if not REFERENCE.is_file() or (store.path and store.path.resolve() == REFERENCE.resolve()):
        return []
    reference = open_store(str(REFERENCE), create=False)
    found = _sections(reference, protocol_key, judge)
    reference.close()
    return found


def _json(found: Sequence[Section]) -> list[dict[str, Any]]:
    return [row for section in found for row in section.rows]


def _checkpoints(store: Store, protocol_key: str) -> list[tuple[str, Path]]:
    query = (
        select(schema.Contestant.name, schema.Contestant.seed, schema.Derivation.key)
        .join(schema.Derivation, schema.Derivation.model_key == schema.Contestant.model_key)
        .where(schema.Contestant.protocol_key == protocol_key, schema.Contestant.kind == "method")
        .order_by(schema.Contestant.name, schema.Contestant.seed)
    )
    with store.read() as session:
        found = [(name, store.artefacts / f"{name}-seed{seed}-{key[:8]}") for name, seed, key in session.execute(query)]
    return [(name, place) for name, place in found if place.is_dir()]


def _table(section: Section, reference: Sequence[Section]) -> Table:
    kind = "proxy, not a preference judgment" if section.proxy else "LLM judge"
    table = Table(title=f"{section.recipe}: win rate against the teacher, % (judge: {section.judge}, {kind})")
    table.add_column("task", style="bold")
    table.add_column("method")
    for name in ("win rate", "95 % interval", "preference", "flips", "unscored", "length", "KL", "seeds"):
        table.add_column(name, justify="right")
    tasks = list(dict.fromkeys(row["task"] for row in section.board_rows))
    for task in tasks:
        for row in section.board_rows:
            if row["task"] == task:
                table.add_row(f"{task} ({section.domains[task]})", row["contestant"], *_cells(row))
        for other in reference:
            for row in other.board_rows:
                if row["task"] == task:
                    table.add_row("  reference", row["contestant"], *_cells(row), style="dim")
        table.add_section()
    return table


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        number(row["win_rate"]),
        f"{number(row['ci_low'])} – {number(row['ci_high'])}",
        number(row["preference_rate"], sign=True),
        number(row["flip_rate"]),
        str(row["unscored"]),
        number(row["mean_length"], 0),
        number(row["kl_from_teacher"], 3),
        str(row["seeds"]),
    ]
