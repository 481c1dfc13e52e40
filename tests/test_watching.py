"""What a run is at, kept in its store for whoever watches from elsewhere."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dadpo_bench import watching
from dadpo_bench.history import runs
from dadpo_bench.history.runs import Activity, runs_of, state_of
from dadpo_bench.progress import silent
from dadpo_bench.stages import Stage
from dadpo_bench.store import Store, schema
from dadpo_bench.watching import Watched, watched
from tests.empty_store import empty_store

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(watching, "EVERY", 0.02)
    made = empty_store(tmp_path / "x.sqlite3")
    with made.write() as session:
        session.add(schema.Protocol(key="p", name="p", settings={}))
        session.flush()
        session.add(schema.Run(id=1, protocol_key="p", started=NOW, arguments={}, recipe={}, environment={}))
    return made


def noted(store: Store) -> tuple[Activity, ...]:
    with store.read() as session:
        (run,) = runs_of(session)
    return run.activities


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_stage_and_every_bar_are_noted_while_they_go_on(store: Store) -> None:
    reporter = silent()
    with watched(store, 1, reporter) as run:
        run.enter(Stage.train)
        with reporter.bar("train dadpo", 1, "steps", "d" * 32) as bar:
            bar.reach(30, 120)
            until(lambda: len(noted(store)) == 2 and noted(store)[1].done == 30)
            stage, training = noted(store)
            assert (stage.label, stage.pace) == ("train", "5 of 9 stages")
            assert (training.label, training.total, training.derivation_key) == ("train dadpo", 120, "d" * 32)
            assert training.rate is not None
            with store.read() as session:
                assert str(state_of(runs_of(session)[0], datetime.now(UTC))) == "running, at train"
        until(lambda: len(noted(store)) == 1)
    assert noted(store) == ()


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError])
def test_what_was_noted_last_stays_where_work_ends_early(store: Store, end: type[BaseException]) -> None:
    reporter = silent()

    def work() -> None:
        with watched(store, 1, reporter) as run:
            run.enter(Stage.models)
            with reporter.bar("answers", 10) as bar:
                bar.advance(4)
                until(lambda: [a.done for a in noted(store)] == [0, 4])
                raise end

    with pytest.raises(end):
        work()
    assert [(a.label, a.done) for a in noted(store)] == [("models", 0), ("answers", 4)]
    assert reporter.bars == []


def test_a_run_that_was_killed_is_told_after_a_while(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SILENCE", 5.0)
    Watched(store, 1, silent()).enter(Stage.judge)
    with store.read() as session:
        (left,) = runs_of(session)
    heard = left.activities[0].updated
    told = [str(state_of(left, now)) for now in (heard, heard + timedelta(seconds=6), None)]
    assert told == ["running, at judge", "stopped, at judge", "running or stopped, at judge"]


def test_the_time_left_is_that_of_the_rate_so_far() -> None:
    at = Activity("answers", "responses", 30, 120, NOW, NOW + timedelta(seconds=60), None)
    assert (at.rate, at.seconds_left, at.pace) == (0.5, 180.0, "30 of 120 responses, 0.5/s, 3.0 min left")
    assert Activity("answers", "responses", 0, 120, NOW, NOW, None).pace == "0 of 120 responses"
