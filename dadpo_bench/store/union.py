"""One store's rows into another's, by content key: new ones are inserted, equal ones are nothing, others conflicts."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import JSON, TableValuedAlias, Text, and_, delete, func, literal, select
from sqlalchemy import Row as SQLRow
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import KeyedColumnElement

from dadpo_bench.store import schema
from dadpo_bench.store.rows import insert_missing, upsert
from dadpo_bench.store.sameness import SAMENESS, Row, Sameness
from dadpo_bench.types import content_key

_CHUNK = 500
"""Rows in memory at once: databases limit the parameters of one statement, and a key may have four columns."""

MOST = 200
"""Conflicts of a table that are told one by one; all are counted."""

_LONGEST = 60
"""Characters of a value that is told."""


class Part(NamedTuple):
    """A store that takes part, as it is called, and a session that sees it as it was at the beginning."""

    name: str
    session: Session


class Conflict(NamedTuple):
    """Two rows of one key that contradict each other."""

    table: str
    key: dict[str, Any]
    called: str
    """Its name, where it has one."""
    stores: tuple[str, str]
    """Which has the row that was there first, and which brings another."""
    differing: dict[str, tuple[str, str]]
    """By column: what each of them says, no longer than can be shown."""

    def __str__(self) -> str:
        held, brought = self.stores
        said = "; ".join(
            f"{name} {ours} in {held}, {theirs} in {brought}" for name, (ours, theirs) in self.differing.items()
        )
        place = "/".join(str(part)[:8] for part in self.key.values())
        return f"{' '.join(filter(None, (self.table, place, self.called)))}: {said}"


@dataclass
class Counts:
    """What became of the rows that were brought, by table."""

    added: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    """There already, and the same."""
    settled: Counter[str] = field(default_factory=Counter)
    """That took the place of a row which said nothing: answers, where a judge had failed."""
    contested: Counter[str] = field(default_factory=Counter)
    """That contradict what is there."""
    leaning: Counter[str] = field(default_factory=Counter)
    """Left out, for they refer to a row that is contested: a verdict on a response of other words."""


def size(session: Session) -> int:
    """Rows that `Union.take` walks through."""
    tables: list[type[schema.Base]] = [same.table for same in SAMENESS]
    tables += [schema.Metric, schema.JudgeEvaluation, schema.Run]
    return sum(session.scalars(select(func.count()).select_from(table)).one() for table in tables)


class Union:
    """Rows of several stores into one, within its transaction, a few hundred in memory at a time."""

    def __init__(self, into: Session, before: Part, told: Callable[[int], None]) -> None:
        self._into, self._told = into, told
        self._parts = [before]
        """Who has given rows so far, in order; the first is the store itself, as it was."""
        self.counts = Counts()
        self.conflicts: list[Conflict] = []
        """The first `MOST` of each table."""

    def take(self, source: Part) -> None:
        """Insert what a store has and those before it had not; what is contested stays as it was."""
        lost: dict[str, set[str]] = defaultdict(set)
        """By table: keys of the rows that are not taken, so that nothing is taken that leans on them."""
        finished = _finished(self._into)
        for same in SAMENESS:
            self._take_rows(source, same, lost)
        self._take_curves(source, finished, lost[schema.Derivation.__tablename__])
        self._take_evaluations(source)
        self._take_runs(source)
        self._parts.append(source)

    def _take_rows(self, source: Part, same: Sameness, lost: dict[str, set[str]]) -> None:
        table, name = same.table.__table__, same.table.__tablename__
        keys = _keys(same.table)
        leans = [(column.name, key.column.table.name) for column in table.columns for key in column.foreign_keys]
        query = select(table).order_by(*keys).execution_options(yield_per=_CHUNK)
        for rows in map(_rows, source.session.execute(query).partitions()):
            held = self._held(same.table, rows)
            fresh, better = [], []
            for row in rows:
                place = _place(row, keys)
                ours = held.get(place)
                if any(row[column] in lost[other] for column, other in leans):
                    self.counts.leaning[name] += 1
                    lost[name].add(place[0])
                elif ours is None:
                    fresh.append(row)
                elif columns := same.differing(ours, row):
                    self.counts.contested[name] += 1
                    lost[name].add(place[0])
                    self._tell(same, source, ours, row, columns)
                elif same.improves(ours, row):
                    better.append(row)
                else:
                    self.counts.known[name] += 1
            insert_missing(self._into, same.table, fresh)
            upsert(self._into, same.table, better)
            self.counts.added[name] += len(fresh)
            self.counts.settled[name] += len(better)
            self._told(len(rows))

    def _held(self, table: type[schema.Base], rows: Sequence[Row]) -> dict[tuple[Any, ...], Row]:
        """By key, the rows that are there under the keys of these."""
        keys, query = _keys(table), select(table.__table__)
        places = [_place(row, keys) for row in rows]
        if len(keys) == 1:
            query = query.where(keys[0].in_([place[0] for place in places]))
        else:  # as one parameter, joined: for rows IN (VALUES …) SQLite scans the table, and PostgreSQL plans long
            wanted, part = _wanted(self._into, json.dumps(places))
            query = query.join(wanted, and_(*(key == part(number, key) for number, key in enumerate(keys))))
        return {_place(row, keys): row for row in _rows(self._into.execute(query))}

    def _tell(self, same: Sameness, source: Part, ours: Row, theirs: Row, columns: Sequence[str]) -> None:
        if self.counts.contested[same.table.__tablename__] > MOST:
            return
        keys = _keys(same.table)
        query = select(same.table.__table__).where(and_(*(key == ours[key.name] for key in keys)))
        for part in self._parts:
            there = _rows(part.session.execute(query))
            if there and all(there[0][name] == ours[name] for name in same.compared):
                break
        differing = {name: (_short(ours[name]), _short(theirs[name])) for name in columns}
        place = {key.name: ours[key.name] for key in keys}
        called, stores = str(ours.get("name", "")), (part.name, source.name)
        self.conflicts.append(Conflict(same.table.__tablename__, place, called, stores, differing))

    def _take_curves(self, source: Part, finished: set[str], lost: set[str]) -> None:
        """Each training's steps from one store whole: who finished it, else who came further."""
        metric, name = schema.Metric, schema.Metric.__tablename__
        ours, done = _steps(self._into), _finished(source.session)
        for key, steps in _steps(source.session).items():
            there = ours.get(key, 0)
            if key in lost:
                self.counts.leaning[name] += steps
            elif there and (key in finished or (key not in done and steps <= there)):
                self.counts.known[name] += steps
            else:
                self._into.execute(delete(metric).where(metric.derivation_key == key))
                rows = source.session.execute(select(metric.__table__).where(metric.derivation_key == key))
                insert_missing(self._into, metric, _rows(rows))
                self.counts.added[name] += steps
            self._told(steps)

    def _take_evaluations(self, source: Part) -> None:
        """Of two findings about a judge the later one, as `judge-eval` itself puts it in the earlier one's place."""
        table, name = schema.JudgeEvaluation, schema.JudgeEvaluation.__tablename__
        rows = _rows(source.session.execute(select(table.__table__)))
        for row in rows:
            ours = self._held(table, [row]).get(_place(row, _keys(table)))
            later = ours is None or row["made"] > ours["made"]
            if later:
                upsert(self._into, table, [row])
            (self.counts.added if later else self.counts.known)[name] += 1
        self._told(len(rows))

    def _take_runs(self, source: Part) -> None:
        """Runs under numbers of their own here; one that is there already, unless it has gone on meanwhile."""
        name = schema.Run.__tablename__
        there = {_identity(run): run for run in self._into.scalars(select(schema.Run))}
        brought = source.session.scalars(select(schema.Run).order_by(schema.Run.started, schema.Run.id)).all()
        for theirs in brought:
            run = there.get(_identity(theirs))
            (self.counts.known if run else self.counts.added)[name] += 1
            if run is None:
                columns = {c.name: getattr(theirs, c.name) for c in schema.Run.__table__.columns if c.name != "id"}
                run = schema.Run(**columns)
                self._into.add(run)
                self._into.flush()
            run.finished = run.finished or theirs.finished
            times = select(schema.StageTime.__table__).where(schema.StageTime.run_id == theirs.id)
            rows = [{**row, "run_id": run.id} for row in _rows(source.session.execute(times))]
            insert_missing(self._into, schema.StageTime, rows)
        self._told(len(brought))


def _rows(found: Iterable[SQLRow[Any]]) -> list[dict[str, Any]]:
    """By column: of a whole result, or a part of one."""
    return [dict(row._mapping) for row in found]


def _keys(table: type[schema.Base]) -> list[KeyedColumnElement[Any]]:
    return [column for column in table.__table__.columns if column.primary_key]


def _place(row: Row, keys: Sequence[KeyedColumnElement[Any]]) -> tuple[Any, ...]:
    return tuple(row[key.name] for key in keys)


def _wanted(session: Session, places: str) -> tuple[TableValuedAlias, Callable[[int, KeyedColumnElement[Any]], Any]]:
    """A JSON array of keys as a table, and what gives the part of a key that stands for a column."""
    if session.get_bind().dialect.name == "postgresql":
        found = func.json_array_elements(sql_cast(literal(places, Text), JSON)).table_valued("value")
        return found, lambda number, key: sql_cast(found.c.value.op("->>")(number), key.type)
    found = func.json_each(places).table_valued("value")
    return found, lambda number, _: func.json_extract(found.c.value, f"$[{number}]")


def _steps(session: Session) -> dict[str, int]:
    """By training: how many steps it has told of."""
    key = schema.Metric.derivation_key
    return dict(session.execute(select(key, func.count()).group_by(key)).all())


def _finished(session: Session) -> set[str]:
    return set(session.scalars(select(schema.Derivation.key)))


def _identity(run: schema.Run) -> str:
    """What tells a run from others, whatever its number: when it began, under what, and what it was asked."""
    return content_key(run.protocol_key, run.started.isoformat(), run.arguments, run.recipe)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
