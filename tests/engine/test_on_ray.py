"""The whole of a run on a simulated cluster on 127.0.0.1, a machine of which is lost on the way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import environment, program, write_recipe
from tests.simulated_cluster import QUIET, kept, simulated_cluster

pytest.importorskip("ray", reason="pip install 'dadpo-bench[ray]'")


@pytest.mark.slow
def test_a_cluster_that_loses_a_machine_gives_what_this_process_gives(
    tiny_models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (environment() | QUIET).items():
        monkeypatch.setenv(name, value)
    recipe = write_recipe(tiny_models, tmp_path)
    here = ["run", "dadpo", "--recipe", recipe, "--store"]
    alone = program(*here, tmp_path / "alone.sqlite3")
    assert alone.returncode == 0, alone.stderr
    command = [sys.executable, "-m", "dadpo_bench", *map(str, here), str(tmp_path / "far.sqlite3")]
    with (
        simulated_cluster() as cluster,
        subprocess.Popen(
            [*command, "--engine", cluster.address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as run,
    ):
        assert run.stdout is not None
        while run.stdout.readline().strip() != "student-responses":
            assert run.poll() is None, run.communicate()
        cluster.lose()
        said, errors = run.communicate(timeout=500)
    assert run.returncode == 0, (said, errors)
    assert "Traceback" not in errors
    assert kept(tmp_path / "far.sqlite3") == kept(tmp_path / "alone.sqlite3")


def test_nobody_at_an_address_is_told_at_once(bench: Any, tiny_recipe: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = bench("run", "dadpo", "--recipe", tiny_recipe, "--engine", f"ray://127.0.0.1:{port}")
    assert (told.returncode, told.stdout) == (2, "")
    assert f"--engine ray://127.0.0.1:{port}: nobody answers there" in told.stderr


@pytest.mark.parametrize("engine", ["slurm", "http://x:1", "ray:/x"])
def test_what_is_no_engine_is_refused(bench: Any, tiny_recipe: Path, engine: str) -> None:
    told = bench("run", "dadpo", "--recipe", tiny_recipe, "--engine", engine)
    assert (told.returncode, "choose local, ray, or a cluster's HOST:PORT" in told.stderr) == (2, True)


def test_ray_is_needed_by_nothing_else(tmp_path: Path) -> None:
    code = "import sys, dadpo_bench.engine, dadpo_bench.pipeline; assert 'ray' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
