"""What judges say is kept as it arrives, in batches, by a thread of its own: the next answers are not held up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Self

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from dadpo_bench.store import schema
from dadpo_bench.store.connection import Store
from dadpo_bench.store.rows import chunks
from dadpo_bench.types import Outcome

AT_RISK = 64
"""Judgments that may wait for their commit; whoever brings another waits with it."""
BATCH = AT_RISK // 2
"""Judgments that are worth a commit: so many more may come while it is made."""
SECONDS = 0.25
"""What a judgment waits for others to share a commit with, at most."""

_UNPAID = {"tokens": 0, "answer_tokens": 0, "seconds": 0.0}

Table = type[schema.Rating] | type[schema.Verdict]

_UNSCORED: Mapping[Table, Any] = {
    schema.Rating: schema.Rating.value.is_(None),
    schema.Verdict: schema.Verdict.outcome == str(Outcome.unscored),
}


def keep_judgments(session: Session, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep what a judge said, unless another run has kept something meanwhile: a failure never replaces an answer."""
    session.execute(keeping(table, session.get_bind().dialect.name), [dict(row) for row in rows])


def keeping(table: Table, dialect: str) -> Any:
    """The statement for it."""
    insert: Any = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = insert(table.__table__)
    columns = table.__table__.columns
    return statement.on_conflict_do_update(
        index_elements=[column.name for column in columns if column.primary_key],
        set_={column.name: statement.excluded[column.name] for column in columns if not column.primary_key},
        where=_UNSCORED[table],
    )


def share_ratings(session: Session, judge_key: str, alike: Sequence[Sequence[str]]) -> None:
    """Keep for every response, by its key, what was said of one of those that say the same; it cost nothing more."""
    ratings = schema.Rating.__table__
    query = select(ratings).where(ratings.c.judge_key == judge_key)
    found = {
        row["response_key"]: row
        for part in chunks([key for keys in alike for key in keys])
        for row in session.execute(query.where(ratings.c.response_key.in_(part))).mappings()
    }
    shared = []
    for keys in alike:
        said = sorted((found[key] for key in keys if key in found), key=lambda row: row["value"] is None)
        for key in keys if said else ():
            if key != said[0]["response_key"]:
                shared.append({**said[0], **_UNPAID, "response_key": key})
    if shared:
        keep_judgments(session, schema.Rating, shared)  # which leaves those alone that have a rating of their own


class Keeper:
    """Within its context, `keep` stores rows soon; behind it they are stored, whatever ended it.

    At most `AT_RISK` rows or `SECONDS` of them and one commit are lost with the process. What the store
    raises is raised by the next `keep`, or at the end.
    """

    def __init__(self, store: Store, table: Table) -> None:
        self._store, self._table = store, table
        self._waiting: list[Mapping[str, Any]] = []
        """Given and not committed, those of a commit under way among them."""
        self._changed = Condition()
        self._ended = False
        self._error: Exception | None = None
        self._thread = Thread(target=self._write_all, name="keeper", daemon=True)

    def keep(self, row: Mapping[str, Any]) -> None:
        """Store a row soon."""
        with self._changed:
            while len(self._waiting) >= AT_RISK and self._error is None:
                self._changed.wait()
            if self._error is not None:
                raise self._error
            self._waiting.append(row)
            if len(self._waiting) >= BATCH:
                self._changed.notify_all()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, raised: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()
        if self._error is not None and raised is not self._error:
            raise self._error

    def _write_all(self) -> None:
        try:
            while rows := self._next():
                with self._store.write() as session:
                    keep_judgments(session, self._table, rows)
                with self._changed:
                    del self._waiting[: len(rows)]
                    self._changed.notify_all()
        except Exception as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _next(self) -> list[Mapping[str, Any]]:
        """What is to be committed together; empty at the end."""
        with self._changed:
            while not self._waiting and not self._ended:
                self._changed.wait(SECONDS)
            if not self._ended and len(self._waiting) < BATCH:
                self._changed.wait(SECONDS)
            return list(self._waiting)
