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
    with watched(store, 1, reporter, list(Stage)) as run:
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
        with watched(store, 1, reporter, list(Stage)) as run:
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
    Watched(store, 1, silent(), list(Stage)).enter(Stage.judge)
    with store.read() as session:
        (left,) = runs_of(session)
    heard = left.activities[0].updated
    told = [str(state_of(left, now)) for now in (heard, heard + timedelta(seconds=6), None)]
    assert told == ["running, at judge", "stopped, at judge", "running or stopped, at judge"]


def at(done: int, *, behind: int = 0, total: int = 120) -> Activity:
    minute = timedelta(seconds=60)
    return Activity("answers", "responses", behind, done, total, NOW, NOW + minute, ended=False, derivation_key=None)


@pytest.mark.parametrize(
    ("activity", "told"),
    [
        (at(30), "30 of 120 responses, 2.0 s each, 3.0 min left"),
        (at(90), "90 of 120 responses, 1.5/s, 20.0 s left"),
        (at(0), "0 of 120 responses"),
        (at(0, total=0), "not begun"),
        # What an earlier process did says nothing of how fast this one is.
        (at(100, behind=99), "100 of 120 responses, 1.0 min each, 20.0 min left"),
    ],
)
def test_the_time_left_is_that_of_the_rate_so_far(activity: Activity, told: str) -> None:
    assert activity.pace == told


def test_a_training_that_goes_on_tells_from_where() -> None:
    reporter = silent()
    with reporter.bar("train dadpo", 1, "steps", "d" * 32) as bar:
        assert (bar.known, bar.behind) == (False, 0)
        bar.reach(900, 1000)
        bar.reach(901, 1000)
        assert (bar.known, bar.behind, bar.done, bar.total) == (True, 899, 901, 1000)


def test_a_run_that_was_stopped_is_not_called_running(store: Store) -> None:
    def work() -> None:
        with watched(store, 1, silent(), [Stage.models, Stage.teacher_responses]) as run:
            run.enter(Stage.teacher_responses)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    with store.read() as session:
        (left,) = runs_of(session)
    assert str(state_of(left, datetime.now(UTC))) == "stopped, at teacher-responses"
    assert left.activities[0].pace == "1 of 2 stages"


def test_one_that_goes_on_behind_a_later_one_is_running(store: Store) -> None:
    Watched(store, 1, silent(), list(Stage)).enter(Stage.train)
    with store.write() as session:
        same = {"protocol_key": "p", "arguments": {}, "recipe": {}, "environment": {}}
        session.add(schema.Run(id=2, started=NOW, finished=NOW, **same))
    with store.read() as session:
        state = state_of(runs_of(session)[0], datetime.now(UTC))
    assert (state.running, state.left) == (True, False)
