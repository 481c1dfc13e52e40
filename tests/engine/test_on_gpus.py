"""What only a GPU shows: workers that share one give what this process gives on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import environment, program, write_recipe
from tests.simulated_cluster import QUIET, kept

pytest.importorskip("ray", reason="pip install 'dadpo-bench[ray]'")


@pytest.mark.gpu
def test_workers_that_share_a_gpu_give_what_this_process_gives(
    gpus: int, tiny_models: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = write_recipe(tiny_models, tmp_path)
    spread = ["--engine", "ray", "--set", f"engine.workers={2 * gpus}", "--set", "engine.gpus_per_worker=0.5"]
    for name, engine in (("alone", []), ("spread", spread)):
        arguments = ["run", "dadpo", "--recipe", recipe, "--store", tmp_path / f"{name}.sqlite3", *engine]
        done = program(*arguments, env=environment() | QUIET)
        assert done.returncode == 0, done.stderr
    alone, there = kept(tmp_path / "alone.sqlite3"), kept(tmp_path / "spread.sqlite3")
    assert {table: len(rows) for table, rows in there.items()} == {table: len(rows) for table, rows in alone.items()}
    assert (there["responses"], there["signals"]) == (alone["responses"], alone["signals"])
