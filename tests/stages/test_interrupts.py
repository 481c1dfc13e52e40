"""Ctrl-C within a training: what is kept, and whether what the program says of it is true."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dadpo_bench import pipeline
from dadpo_bench.engine import LocalEngine
from dadpo_bench.errors import Interrupted
from dadpo_bench.models import precision
from dadpo_bench.plan import make_plan
from dadpo_bench.progress import Reporter, silent
from dadpo_bench.recipe import load_recipe
from dadpo_bench.stages import Stage
from dadpo_bench.stages.bench import Bench
from dadpo_bench.store import open_store
from dadpo_bench.types import Checkpoint, Job


class Typist(LocalEngine):
    """Types Ctrl-C so many times when a training has done that step."""

    def __init__(self, step: int, times: int, *, deaf: bool = False) -> None:
        super().__init__()
        self._step, self._times, self._deaf = step, times, deaf

    def train(self, method: str, job: Job) -> Checkpoint:
        def report(step: int, steps: int, metrics: Any) -> None:
            job.report(step, steps, metrics)
            if step == self._step:
                for _ in range(self._times):
                    signal.raise_signal(signal.SIGINT)

        return super().train(method, replace(job, report=report, **({"stop": lambda: False} if self._deaf else {})))


Dsft = Callable[..., list[str]]


@pytest.fixture
def dsft(tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dsft:
    """`dsft(store, engine)` runs up to dSFT's three steps, and gives what was said."""
    monkeypatch.setenv("DADPO_BENCH_DTYPE", "float32")
    precision.compute_dtype.cache_clear()
    plan = make_plan(load_recipe(str(tiny_recipe)), ["sft"], 1)

    def run(store: str, engine: LocalEngine) -> list[str]:
        said: list[str] = []

        class Told(Reporter):
            def say(self, text: str) -> None:
                said.append(text.strip())

        opened = open_store(str(tmp_path / f"{store}.sqlite3"))
        try:
            pipeline.run(Bench(opened, engine, Told(silent().console)), plan, {}, Stage.dsft)
        finally:
            opened.close()
        return said

    return run


def weights(folder: Path) -> bytes:
    (checkpoint,) = folder.glob("sft-seed0-*/model.safetensors")
    return checkpoint.read_bytes()


def test_the_first_ctrl_c_saves_a_training_that_goes_on_there_to_the_weights_of_an_uninterrupted_one(
    dsft: Dsft, tmp_path: Path
) -> None:
    dsft("whole", LocalEngine())
    for step in (1, 2):
        with pytest.raises(KeyboardInterrupt) as stopped:
            dsft("parts", Typist(step, times=1))
        assert not isinstance(stopped.value, Interrupted)  # "goes on from here"
    assert "goes on behind step 2" in dsft("parts", LocalEngine())
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert not (tmp_path / "parts" / "unfinished").exists()


def test_a_second_ctrl_c_stops_at_once_and_says_what_is_lost(dsft: Dsft) -> None:
    with pytest.raises(Interrupted, match="with the same command train sft, seed 0 begins anew"):
        dsft("x", Typist(1, times=2))
    with pytest.raises(KeyboardInterrupt):
        dsft("x", Typist(1, times=1))
    with pytest.raises(Interrupted, match="with the same command train sft, seed 0 goes on behind step 1"):
        dsft("x", Typist(2, times=2))


def test_a_training_that_does_not_ask_whether_to_stop_is_stopped_at_once(dsft: Dsft) -> None:
    with pytest.raises(Interrupted, match="begins anew"):
        dsft("x", Typist(1, times=1, deaf=True))


def test_ctrl_c_behind_the_last_step_keeps_the_checkpoint(dsft: Dsft, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as stopped:
        dsft("x", Typist(3, times=1))
    assert not isinstance(stopped.value, Interrupted)
    kept = weights(tmp_path / "x")
    assert not [line for line in dsft("x", LocalEngine()) if line.startswith("train ")]
    assert weights(tmp_path / "x") == kept
