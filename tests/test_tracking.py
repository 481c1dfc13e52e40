"""`--log-with`: a tracker is told what the store is told."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dadpo_bench.engine import LocalEngine
from dadpo_bench.errors import UserError
from dadpo_bench.pipeline import run
from dadpo_bench.plan import make_plan
from dadpo_bench.progress import silent
from dadpo_bench.recipe import load_recipe
from dadpo_bench.stages import Stage
from dadpo_bench.stages.bench import Bench
from dadpo_bench.store import open_store, schema
from dadpo_bench.tracking import check_tracker


def test_tensorboard_is_told_every_step_that_the_store_is_told(tiny_recipe: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "x.sqlite3"))
    plan = make_plan(load_recipe(str(tiny_recipe)), ["sft"], 1)
    run(Bench(store, LocalEngine(), silent(), "tensorboard"), plan, {}, Stage.dsft)
    with store.read() as session:
        stored = {m.step: m.values["loss"] for m in session.query(schema.Metric)}
    (folder,) = (tmp_path / "x" / "trackers").iterdir()
    assert folder.name.startswith("sft-seed0-")
    events = EventAccumulator(str(folder))
    events.Reload()
    assert {e.step: e.value for e in events.Scalars("loss")} == pytest.approx(stored, rel=1e-6)


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'tensorboard'"):
        check_tracker("tensorbord")


def test_a_tracker_that_is_not_installed_is_refused_with_how_to_get_it() -> None:
    with pytest.raises(UserError, match="pip install clearml"):
        check_tracker("clearml")
