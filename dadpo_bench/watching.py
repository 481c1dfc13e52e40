"""What a run is at, kept in its store every two seconds for whoever watches from elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.history.runs import STAGES
from dadpo_bench.progress import Reporter
from dadpo_bench.stages import Stage
from dadpo_bench.store import Store, insert_missing, schema

EVERY = 2.0
"""Seconds between two notes."""

_LONGEST = 300
"""Characters of a label; the column holds as many."""


class Watched:
    """A run that notes its stage and its bars."""

    def __init__(self, store: Store, run_id: int, reporter: Reporter) -> None:
        self._store, self._run_id, self._reporter = store, run_id, reporter
        self._stage, self._began = next(iter(Stage)), datetime.now(UTC)

    def enter(self, stage: Stage) -> None:
        """It is at another stage."""
        self._stage, self._began = stage, datetime.now(UTC)
        self.note()

    def note(self) -> None:
        """Replace what was noted. A store that cannot be written is left to the work itself to tell of."""
        now, stages = datetime.now(UTC), list(Stage)
        place = stages.index(self._stage)
        shown = [_row(str(self._stage), STAGES, place, len(stages), self._began)]
        shown += [_row(b.label, b.unit, b.done, b.total, b.began, b.about) for b in list(self._reporter.bars)]
        rows = [{**row, "run_id": self._run_id, "position": at, "updated": now} for at, row in enumerate(shown)]
        with suppress(UserError, WorkError), self._store.write() as session:
            session.execute(delete(schema.Activity).where(schema.Activity.run_id == self._run_id))
            insert_missing(session, schema.Activity, rows)

    def end(self) -> None:
        """Nothing is under way any more."""
        with self._store.write() as session:
            session.execute(delete(schema.Activity).where(schema.Activity.run_id == self._run_id))


def _row(
    label: str, unit: str, done: int, total: int, began: datetime, derivation_key: str | None = None
) -> dict[str, Any]:
    return {
        "label": label[:_LONGEST],
        "unit": unit,
        "done": done,
        "total": total,
        "began": began,
        "derivation_key": derivation_key,
    }


@contextmanager
def watched(store: Store, run_id: int, reporter: Reporter) -> Iterator[Watched]:
    """Notes are kept while within; what was noted last stays where the work is interrupted."""
    run, over = Watched(store, run_id, reporter), threading.Event()

    def keep() -> None:
        while not over.wait(EVERY):
            run.note()

    thread = threading.Thread(target=keep, name="watched", daemon=True)
    thread.start()
    try:
        yield run
    finally:
        over.set()
        thread.join(EVERY)  # it may wait for a store that another process holds
    run.end()
