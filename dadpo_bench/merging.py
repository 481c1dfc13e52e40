"""Stores made apart, an array job's say, made one: their rows by content key, then the boards that they touch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.engine import URL, make_url

from dadpo_bench.errors import UserError
from dadpo_bench.exchange.stored import join_tasks
from dadpo_bench.open_board import is_open
from dadpo_bench.progress import Reporter, silent
from dadpo_bench.scores import save_scores
from dadpo_bench.store import Store, open_store, schema
from dadpo_bench.store.connection import store_file
from dadpo_bench.store.union import Conflict, Counts, Part, Union, size


class Merged(NamedTuple):
    """What a merge did, or would have done but for conflicts."""

    written: bool
    counts: Counts
    conflicts: list[Conflict]
    """The first ones of each table."""

    @property
    def contested(self) -> int:
        """Conflicts in all."""
        return self.counts.contested.total()

    def as_data(self) -> dict[str, Any]:
        """For machines."""
        tables = {
            table: {name: counts[table] for name, counts in vars(self.counts).items()}
            for table in sorted({table for counts in vars(self.counts).values() for table in counts})
        }
        return {"written": self.written, "tables": tables, "conflicts": [c._asdict() for c in self.conflicts]}


class _Refused(Exception):
    """Ends the transaction."""


def merge(sources: Sequence[str], into: str, *, keep_first: bool = False, reporter: Reporter | None = None) -> Merged:
    """Merge stores, by path or URL, into another, which is made where it is not there; all of it or nothing.

    Where they contradict each other nothing is written, unless `keep_first`: then a row stays that `into` has, else the
    one of the store that is named first, and nothing is taken that leans on the other. Scores are computed again.

    Raises `UserError` for a store that is missing, of an older version, or `into` itself.
    """
    reporter = reporter or silent()
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(open_store(where, create=False, upgrade=False))) for where in sources]
        _refuse_itself(opened, into)
        file = store_file(into)
        made = file is not None and not file.exists()
        target = open_store(into)
        stack.callback(target.close)
        merged = Merged(False, Counts(), [])
        try:
            merged = _merge_rows(target, opened, keep_first, reporter)
        finally:
            if file and made and not merged.written:
                target.close()
                _remove(file)
        if merged.written:
            _score(target, opened, reporter)
    return merged


def _refuse_itself(sources: Sequence[Store], into: str) -> None:
    file = store_file(into)
    for source in sources:
        if source.path is None or file is None:
            same = source.path is file is None and _place(source.engine.url) == _place(make_url(into))
        else:
            same = file.exists() and file.samefile(source.path)
        if same:
            raise UserError(f"{source.name} is merged into itself; name another store after --into")


def _place(url: URL) -> tuple[object, ...]:
    """Which database, whoever asks for it and by which driver."""
    return url.host, url.port, url.database, url.query


def _remove(file: Path) -> None:
    """A store that was made for nothing."""
    for path in (file, *(file.with_name(f"{file.name}-{part}") for part in ("wal", "shm"))):
        path.unlink(missing_ok=True)


def _merge_rows(target: Store, sources: Sequence[Store], keep_first: bool, reporter: Reporter) -> Merged:
    with ExitStack() as stack:
        before = Part(target.name, stack.enter_context(target.read()))
        parts = [Part(source.name, stack.enter_context(source.read())) for source in sources]
        total, done = sum(size(part.session) for part in parts), 0
        reach = stack.enter_context(reporter.patient("merge", "rows"))

        def told(rows: int) -> None:
            nonlocal done
            done += rows
            reach(done, total)

        try:
            with target.write() as session:
                union = Union(session, before, told)
                for part in parts:
                    union.take(part)
                merged = Merged(True, union.counts, union.conflicts)
                if merged.contested and not keep_first:
                    raise _Refused
                for protocol in session.scalars(select(schema.Protocol)):
                    if is_open(protocol.settings):
                        join_tasks(session, protocol.key)
        except _Refused:
            merged = merged._replace(written=False)
    return merged


def _score(target: Store, sources: Sequence[Store], reporter: Reporter) -> None:
    """The boards that any of them had scored, of protocols that were brought."""
    scored = select(schema.Score.protocol_key, schema.Score.judge_key).distinct()
    brought, sections = set[str](), set[tuple[str, str]]()
    for store in sources:
        with store.read() as session:
            brought |= set(session.scalars(select(schema.Protocol.key)))
            sections |= set(session.execute(scored).all())
    with target.read() as session:
        sections |= {section for section in session.execute(scored).all() if section[0] in brought}
    with reporter.bar("score", len(sections), "boards") as bar:
        for protocol, judge in sorted(sections):
            save_scores(target, protocol, judge)
            bar.advance()
