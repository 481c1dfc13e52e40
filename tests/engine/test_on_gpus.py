"""What only a GPU shows: workers on it give what this process gives on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import environment, program, write_recipe
from tests.simulated_cluster import QUIET, kept

pytest.importorskip("ray", reason="pip install 'dadpo-bench[ray]'")

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_workers_that_share_a_gpu_give_what_this_process_gives(tiny_models: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = write_recipe(tiny_models, tmp_path)
    two = ["--engine", "ray", "--set", "engine.workers=2", "--set", "engine.gpus_per_worker=0.5"]
    for name, engine in (("alone", []), ("ray", two)):
        done = program(
            "run", "dadpo", "--recipe", recipe, "--store", tmp_path / f"{name}.sqlite3", *engine,
            env=environment() | QUIET,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert kept(tmp_path / "ray.sqlite3") == kept(tmp_path / "alone.sqlite3")
