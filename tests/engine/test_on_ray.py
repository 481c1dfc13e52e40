"""The whole of a run on a simulated cluster on 127.0.0.1, a machine of which is lost on the way."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import environment, program, write_recipe
from tests.judges.test_local_backend import leaning
from tests.simulated_cluster import QUIET, kept, simulated_cluster
from tests.tiny import build_tiny_model

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


UNFENCED = """
parser = "verdict-token"
fenced = false
label_mass = 0.0
system = "Choose."
single_turn = "{question} {answer_a} {answer_b}: {first} or {second}?"
[labels]
first = "A"
second = "B"
[sampling]
max_tokens = 2
top_logprobs = 20
"""
"""Without marks drawn at random around the responses: the same questions each time."""


@pytest.mark.slow
def test_a_chat_judge_that_workers_load_says_there_what_it_says_here(tmp_path: Path) -> None:
    leaning(build_tiny_model(tmp_path / "tiny"), tmp_path, "A", "B")
    (tmp_path / "unfenced.toml").write_text(UNFENCED)
    pairs = [{"turns": [f"{n}?"], "first": ["Red. " * n], "second": ["Blue."], "label": "first"} for n in range(1, 7)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    asked = ["judge-eval", "chat:leaning", "--backend", "local", "--template", "unfenced.toml"]
    asked += ["--set", "batch_size=1", "--pairs", "pairs.jsonl"]  # three shares of four questions
    here, there = (
        program(*asked, "--store", f"{where}.sqlite3", "--engine", where, cwd=tmp_path, env=environment() | QUIET)
        for where in ("local", "ray")
    )
    assert (here.returncode, there.returncode) == (0, 0), (here.stderr, there.stderr)
    assert "12 verdicts, " in there.stderr
    assert "answered, by workers" in there.stderr
    alone, spread = (verdicts(tmp_path / f"{where}.sqlite3") for where in ("local", "ray"))
    assert [row[:-1] for row in spread] == [row[:-1] for row in alone]
    assert [row[-1] for row in spread] == pytest.approx([row[-1] for row in alone], abs=1e-5)
    assert len({row[-1] for row in alone}) == len(alone) == 12


def verdicts(store: Path) -> list[Any]:
    columns = (
        'judge_key, contestant_response, baseline_response, "order", outcome, raw, resolved_model, fingerprint, '
        "tokens, answer_tokens, preference"
    )
    with closing(sqlite3.connect(store)) as raw:
        return raw.execute(f"SELECT {columns} FROM verdicts ORDER BY 2, 3, 4").fetchall()


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
