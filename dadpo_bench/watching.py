"""What a run is at, kept in its store every two seconds for whoever watches from elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, update

from dadpo_bench.history.runs import STAGES
from dadpo_bench.progress import Bar, Reporter
from dadpo_bench.stages import Stage
from dadpo_bench.store import Store, insert_missing, schema

EVERY = 2.0
"""Seconds between two notes."""


class Watched:
    """A run that notes its stage and its bars."""

    def __init__(self, store: Store, run_id: int, reporter: Reporter, stages: Sequence[Stage]) -> None:
        self._store, self._run_id, self._reporter, self._stages = store, run_id, reporter, stages
        self._stage, self._began = stages[0], datetime.now(UTC)

    def enter(self, stage: Stage) -> None:
        """It is at another stage."""
        self._stage, self._began = stage, datetime.now(UTC)
        self.note()

    def note(self) -> None:
        """Replace what was noted. A store that cannot be written is left to the work itself to tell of."""
        done = self._stages.index(self._stage)
        stage = {"label": str(self._stage), "unit": STAGES, "behind": 0, "done": done, "total": len(self._stages)}
        shown = [{**stage, "began": self._began, "derivation_key": None}, *map(_row, list(self._reporter.bars))]
        same = {"run_id": self._run_id, "updated": datetime.now(UTC), "ended": False}
        with suppress(Exception), self._store.write() as session:
            session.execute(self._noted(delete))
            insert_missing(session, schema.Activity, [{**row, **same, "position": at} for at, row in enumerate(shown)])

    def _noted(self, statement: Any) -> Any:
        return statement(schema.Activity).where(schema.Activity.run_id == self._run_id)

    def end(self, *, finished: bool) -> None:
        """Nothing is under way any more; of what was left unfinished the last note stays."""
        with suppress(Exception), self._store.write() as session:
            session.execute(self._noted(delete) if finished else self._noted(update).values(ended=True))


def _row(bar: Bar) -> dict[str, Any]:
    return {
        "label": bar.label[: schema.LABEL],
        "unit": bar.unit,
        "behind": bar.behind,
        "done": bar.done,
        "total": bar.total if bar.known else 0,
        "began": bar.began,
        "derivation_key": bar.about,
    }


@contextmanager
def watched(store: Store, run_id: int, reporter: Reporter, stages: Sequence[Stage]) -> Iterator[Watched]:
    """Notes are kept while within. `stages` are those that the run will go through."""
    run, over, finished = Watched(store, run_id, reporter, stages), threading.Event(), False

    def keep() -> None:
        while not over.wait(EVERY):
            run.note()

    thread = threading.Thread(target=keep, name="watched", daemon=True)
    thread.start()
    try:
        yield run
        finished = True
    finally:
        over.set()
        thread.join(EVERY)  # it may wait for a store that another process holds
        if not thread.is_alive():
            run.end(finished=finished)
