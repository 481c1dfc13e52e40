"""What killed processes leave behind is cleared away; what others are making is not, on whichever machine."""

import os
import time
from pathlib import Path

import pytest

from dadpo_bench import left_behind
from dadpo_bench.left_behind import alive, let_go, owner
from dadpo_bench.stages.students import _own_state, _scratch


def test_of_this_machine_the_dead_are_known_by_their_number(tmp_path: Path) -> None:
    here = owner().split("@")[0]
    for name in (f".x.{here}@999999999.partial", f".x.{owner()}.partial", ".x.partial", ".x.99999.partial"):
        (tmp_path / name).mkdir()
    assert [path.name for path in left_behind.left_behind(tmp_path, ".*.partial")] == [f".x.{here}@999999999.partial"]


def test_of_another_machine_only_those_that_have_long_been_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, silent = tmp_path / f".x.elsewhere@{os.getpid()}.partial", tmp_path / ".x.elsewhere@7.partial"
    for path in (busy, silent):
        path.mkdir()
        os.utime(path, (0, time.time() - 3600))
    monkeypatch.setattr(left_behind, "_EVERY", 0.01)
    with alive(busy, tmp_path / "not-there-yet"):
        until = time.monotonic() + 10
        while time.time() - busy.stat().st_mtime > 60 and time.monotonic() < until:
            time.sleep(0.01)
        assert left_behind.left_behind(tmp_path, ".*.partial") == [silent]


def test_what_is_let_go_may_be_had_elsewhere_at_once(tmp_path: Path) -> None:
    state = tmp_path / "x.elsewhere@7"
    state.mkdir()
    assert left_behind.left_behind(tmp_path, "x.*") == []
    let_go(state)
    assert left_behind.left_behind(tmp_path, "x.*") == [state]
    let_go(tmp_path / "not-there")


def test_a_training_that_ends_early_lets_its_state_go(tmp_path: Path) -> None:
    state = _own_state(tmp_path / "model")
    state.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt), _scratch(tmp_path / "model"):
        raise KeyboardInterrupt
    assert state.stat().st_mtime == 0
