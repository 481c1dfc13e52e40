"""What many tests share: the program as a process, and a recipe on tiny models that runs in seconds."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.postgres import Server, server
from tests.simulated_cluster import QUIET
from tests.tiny import build_tiny_model

# Few cores serve many processes here; spinning threads only slow each other down, in the programs started too.
_THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, torch.get_num_threads())
torch.set_num_threads(_THREADS)
os.environ["OMP_NUM_THREADS"] = str(_THREADS)
os.environ.update(QUIET)  # before anything imports Ray

_SHOWN = os.environ.get("CUDA_VISIBLE_DEVICES")
GPUS = torch.cuda.device_count()
"""Of this machine. Tests compute on the CPU whatever it has; those marked `gpu` start processes that see them."""
os.environ["CUDA_VISIBLE_DEVICES"] = ""

Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: behind all others one would keep a single worker busy."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many GPUs the processes see that are started within; without any the test is skipped."""
    if not GPUS:
        pytest.skip("needs a CUDA device")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if _SHOWN is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", _SHOWN)
    return GPUS


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A teacher and a student."""
    return (
        build_tiny_model(tmp_path_factory.mktemp("teacher"), hidden=64, seed=1),
        build_tiny_model(tmp_path_factory.mktemp("student"), hidden=32, seed=2),
    )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server; tests that want it are skipped where it is not installed."""
    with server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What to type after `--store` for a store that is not there yet: once a file, once a server's database."""
    monkeypatch.chdir(tmp_path)  # a server's board is written into `results`
    if request.param == "sqlite":
        return str(tmp_path / "x.sqlite3")
    running: Server = request.getfixturevalue("postgres")
    return running.database()


@pytest.fixture
def tiny_recipe(tiny_models: tuple[Path, Path], tmp_path: Path) -> Path:
    """A recipe of this test's own."""
    return write_recipe(tiny_models, tmp_path)


def write_recipe(models: tuple[Path, Path], folder: Path) -> Path:
    """A recipe file: six training prompts, four held-out ones (one of two turns), eight tokens a reply."""
    teacher, student = models
    training, held_out = folder / "training.jsonl", folder / "held-out.jsonl"
    _write(training, [{"id": f"t{i}", "turns": [f"Name {i} colours."]} for i in range(6)])
    turns = [["Tea?"], ["Red or blue?"], ["What is France?", "And Paris?"], ["Say three."]]
    _write(held_out, [{"id": f"h{i}", "turns": turn} for i, turn in enumerate(turns)])
    short = {"max_new_tokens": 8}
    recipe = {
        "name": "tiny",
        "teacher": {"model": str(teacher)},
        "student": {"model": str(student)},
        "prompts": {"task": str(training)},
        "teacher_sampling": {**short, "batch_size": 2},
        "student_sampling": {**short, "batch_size": 2},
        "methods": {
            "sft": {"method": "sft", "learning_rate": 1e-3, "batch_size": 2},
            "kd": {"method": "kd"},
            "dpo": {"method": "dpo"},
            "dadpo": {"method": "dadpo", "learning_rate": 1e-3, "batch_size": 2},
        },
        "tasks": {str(held_out): {}},
        "evaluation": {"sampling": {"temperature": 0, **short, "batch_size": 2}, "canary_prompts": 2, "kl_prompts": 2},
        "judge": "pmi",
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))  # JSON is YAML
    return path


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def environment() -> dict[str, str]:
    """Of a child process: fp32, one thread, no key."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    return {**kept, "DADPO_BENCH_DTYPE": "float32", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture
def bench(tmp_path: Path) -> Run:
    """`bench("run", "dadpo", …)`: the program in a process of its own, in the test's folder."""
    return partial(program, cwd=tmp_path)


def program(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    command = [sys.executable, "-m", "dadpo_bench", *map(str, arguments)]
    settings = {"env": environment(), **options}
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)
