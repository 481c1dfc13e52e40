"""kill -9 in every stage, then the same command: it finishes, repeats nothing and ends with the same scores."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dadpo_bench.pipeline import Stage
from tests.conftest import Run, environment

TABLES = (
    "responses",
    "signals",
    "derivations",
    "ratings",
    "answers",
    "contestants",
    "metrics",
    "divergences",
    "models",
)


def rows(store: Path, table: str, columns: str = "*") -> list[str]:
    with closing(sqlite3.connect(store)) as connection:
        return sorted(map(repr, connection.execute(f"SELECT {columns} FROM {table}").fetchall()))


def contents(store: Path) -> dict[str, Any]:
    return {
        "scores": rows(store, "scores"),
        "responses": rows(store, "responses"),
        "signals": rows(store, "signals"),
        "ratings": rows(store, "ratings"),
        "models": rows(store, "models"),
        "answers": rows(store, "answers"),
    }


def run_until_killed(arguments: list[str], cwd: Path, stage: str) -> None:
    """Start the program and kill it as soon as it says that it is in the stage."""
    command = [sys.executable, "-u", "-m", "dadpo_bench", *arguments]
    with subprocess.Popen(command, cwd=cwd, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == stage:
                process.kill()
                return
        pytest.fail(f"the program never said '{stage}'")


def test_a_run_killed_in_every_stage_ends_as_an_uninterrupted_one(
    tiny_recipe: Path, tmp_path: Path, bench: Run
) -> None:
    arguments = ["run", "dadpo", "--recipe", str(tiny_recipe)]
    uninterrupted = bench(*arguments, "--store", "whole.sqlite3")
    assert uninterrupted.returncode == 0, uninterrupted.stderr
    broken = [*arguments, "--store", "killed.sqlite3"]
    made: set[str] = set()
    for stage in Stage:
        run_until_killed(broken, tmp_path, stage)
        done = set(rows(tmp_path / "killed.sqlite3", "derivations", "key, seconds"))
        # What was finished before an earlier kill was not made again: seconds would differ.
        assert made <= done
        made = done
    finished = bench(*broken)
    assert finished.returncode == 0, finished.stderr
    assert made <= set(rows(tmp_path / "killed.sqlite3", "derivations", "key, seconds"))
    assert contents(tmp_path / "killed.sqlite3") == contents(tmp_path / "whole.sqlite3")
    assert not list((tmp_path / "killed").glob(".*.partial"))


def test_a_second_run_does_nothing_again(tiny_recipe: Path, tmp_path: Path, bench: Run) -> None:
    arguments = ["run", "dadpo", "--recipe", str(tiny_recipe)]
    assert bench(*arguments).returncode == 0
    before = {table: rows(tmp_path / "results" / "local.sqlite3", table) for table in TABLES}
    again = bench(*arguments)
    assert again.returncode == 0
    assert " in " not in "".join(line for line in again.stdout.splitlines(True) if line.startswith("  "))
    assert {table: rows(tmp_path / "results" / "local.sqlite3", table) for table in TABLES} == before


def test_two_runs_at_once_share_a_store(tiny_recipe: Path, tmp_path: Path, bench: Run) -> None:
    arguments = ["run", "dadpo", "--recipe", str(tiny_recipe), "--store", "both.sqlite3"]
    command = [sys.executable, "-m", "dadpo_bench", *arguments]
    both = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert "locked" not in errors
    assert bench("run", "dadpo", "--recipe", tiny_recipe, "--store", "one.sqlite3").returncode == 0
    assert contents(tmp_path / "both.sqlite3") == contents(tmp_path / "one.sqlite3")
