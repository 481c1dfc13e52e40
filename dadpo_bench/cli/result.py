"""What `run` ends with: the rows on screen, the reference rows beside them, and where to look."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import select

from dadpo_bench.cli.options import relative
from dadpo_bench.leaderboard import Section, number, sections
from dadpo_bench.places import DEFAULT_STORE, REFERENCE_STORE
from dadpo_bench.store import Store, open_store, schema
from dadpo_bench.tables import print_table

TEACHER = "teacher"
"""The baseline of a recipe's protocol, by its name."""


def show_result(console: Console, store: Store, protocol_key: str, judge: str, again: str, *, as_json: bool) -> None:
    """The section just scored, with the reference's rows of the same protocol where they are at hand."""
    own = _sections(store, protocol_key, judge)
    reference = _reference(store, protocol_key, judge)
    if as_json:
        accords = [section.accord.as_data() for section in own if section.accord]
        found = {"rows": _json(own), "reference": _json(reference)} | ({"members_agree": accords} if accords else {})
        typer.echo(json.dumps(found, indent=1))
        return
    for section in own:
        console.print()
        console.print(_table(section, [s for s in reference if s.judge == section.judge]))
        for warning in section.warnings:
            console.print(f"  {warning}", markup=False, highlight=False)
    console.print()
    for label, place in (
        ("board", relative(store.board)),
        ("store", _typed(store)),
        ("checkpoints", relative(store.artefacts)),
    ):
        console.print(f"{label:<12} {place}", markup=False, highlight=False, soft_wrap=True)
    for name, directory in _checkpoints(store, protocol_key):
        console.print(f"  {name:<10} {relative(directory)}", markup=False, highlight=False, soft_wrap=True)
    console.print("\nlook at every answer: pages to open or to send, or served while a run goes on")
    where = "" if store.name == str(DEFAULT_STORE) else f" --store {shlex.quote(_typed(store))}"
    for command in ("report", "view"):
        console.print(f"  dadpo-bench {command}{where}", markup=False, highlight=False, soft_wrap=True)
    console.print("next: all methods, with the variance between seeds")
    console.print(f"  {again}", markup=False, highlight=False, soft_wrap=True)
    if reference:
        console.print("or compare these rows with the reference")
        console.print(f"  dadpo-bench check --store {_typed(store)}", markup=False, highlight=False)


def show_ranking(console: Console, store: Store, protocol_key: str, judge_key: str, *, as_json: bool) -> None:
    """The section of an open board that `eval` just scored."""
    with store.read() as session:
        found = [s for s in sections(session) if (s.protocol_key, s.judge_key) == (protocol_key, judge_key)]
    if as_json:
        typer.echo(json.dumps({"rows": _json(found), "board": str(store.board)}, indent=1))
        return
    for section in found:
        console.print()
        print_table(console, _table(section, ()))
        for warning in section.warnings:
            console.print(f"  {warning}", markup=False, highlight=False, soft_wrap=True)
    console.print()
    for label, place in (("board", relative(store.board)), ("store", _typed(store))):
        console.print(f"{label:<12} {place}", markup=False, highlight=False, soft_wrap=True)


def _typed(store: Store) -> str:
    """A store as one would type it here, but for a password."""
    return relative(store.path) if store.path else store.name


def _sections(store: Store, protocol_key: str, judge: str) -> list[Section]:
    with store.read() as session:
        return [s for s in sections(session) if s.protocol_key == protocol_key and s.judge == judge]


def _reference(store: Store, protocol_key: str, judge: str) -> list[Section]:
    if not REFERENCE_STORE.is_file() or store.is_committed:
        return []
    reference = open_store(str(REFERENCE_STORE), create=False)
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
    kind = "a proxy, not a preference judgment" if section.proxy else "an LLM judge"
    baseline = next((row["baseline"] for row in section.board_rows), "")
    trained = baseline == TEACHER
    shown = "preference, flips, length" + (", KL from teacher" if trained else "")
    against = "the teacher" if trained else baseline
    title = f"{section.recipe}: win rate against {against}, % with 95 % interval" if baseline else section.recipe
    table = Table(
        title=escape(f"{title}\njudge {section.judge}, {kind}"),
        caption=escape(f"{shown}: {' / '.join(section.domains)}") if baseline else None,
        padding=(0, 0),
    )
    table.add_column("method" if trained else "contestant", style="bold", no_wrap=True)
    for task, domain in section.domains.items():
        place = domain.replace("-domain", "-\ndomain")
        table.add_column(escape(f"{task}\n({place})"), no_wrap=True)
    for name in _figures(section):
        table.add_column(name, justify="right", no_wrap=True)
    for row in _by_contestant(section):
        table.add_row(escape(row[0]["contestant"]), *_cells(row, section))
    for other in reference:
        table.add_section()
        seeds = max(row["seeds"] for row in other.board_rows)
        # A line of its own: behind each name it would not leave the figures their width.
        table.add_row("reference", f"of {seeds} seeds" if seeds > 1 else "of one seed", style="dim")
        for row in _by_contestant(other):
            table.add_row(escape(row[0]["contestant"]), *_cells(row, section), style="dim")
    return table


def _figures(section: Section) -> list[str]:
    """Columns behind the tasks'."""
    trained = any(row["baseline"] == TEACHER for row in section.board_rows)
    compared = ["prefer-\nence", "flips"] if any(row["baseline"] for row in section.board_rows) else []
    return [*compared, "un-\nscored", "length", *(["KL"] if trained else [])]


def _by_contestant(section: Section) -> list[list[dict[str, Any]]]:
    names = dict.fromkeys(row["contestant"] for row in section.board_rows)
    return [[row for row in section.board_rows if row["contestant"] == name] for name in names]


def _cells(rows: Sequence[dict[str, Any]], section: Section) -> list[str]:
    by_task = {row["task"]: row for row in rows}
    given = [by_task[task] for task in section.domains if task in by_task]

    def joined(name: str, digits: int, *, sign: bool = False) -> str:
        values = [number(row[name], digits, sign=sign) for row in given]
        return "–" if set(values) == {"–"} else "/".join(values)

    figures = {
        "prefer-\nence": joined("preference_rate", 0, sign=True),
        "flips": joined("flip_rate", 0),
        "un-\nscored": str(sum(row["unscored"] for row in given)),
        "length": joined("mean_length", 0),
        "KL": joined("kl_from_teacher", 2),
    }
    return [
        *(_rate(by_task.get(task)) for task in section.domains),
        *(figures[name] for name in _figures(section)),
    ]


def _rate(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    score = "" if row["single_score"] is None else number(row["single_score"], 2)
    if not row["baseline"]:
        return score or "–"
    if row["contestant"] == row["baseline"]:
        return f"baseline; {score}" if score else "baseline"
    rate = f"{number(row['win_rate'])} ({number(row['ci_low'], 0)}–{number(row['ci_high'], 0)})"
    return f"{rate}; {score}" if score else rate
