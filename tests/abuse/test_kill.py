"""kill -9 in every stage, then the same command: it finishes, repeats nothing and ends with the same scores."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dadpo_bench.stages import Stage
from tests.conftest import environment, program, write_recipe

DYING = Path(__file__).with_name("dying.py")

KILLS = (
    (Stage.models, "-"),
    (Stage.teacher_responses, "responses"),
    (Stage.dsft, "-"),
    (Stage.dsft, "metrics"),
    (Stage.dsft, "models"),  # the checkpoint is in its place, but nobody has noted how it was made
    (Stage.student_responses, "responses"),
    (Stage.signals, "signals"),
    (Stage.train, "metrics"),  # in the middle of a training, three times over
    (Stage.train, "metrics"),
    (Stage.train, "metrics"),
    (Stage.responses, "-"),
    (Stage.responses, "divergences"),
    (Stage.judge, "ratings"),
    (Stage.score, "scores"),  # scored, but the board is not written
)
"""Stage, and the table behind whose first new row the program dies there."""

RESULTS = ("scores", "responses", "signals", "ratings", "divergences", "models", "answers", "contestants")
"""Tables that are a function of the recipe alone."""


COLUMNS = {
    "ratings": "judge_key, response_key, value, by_turn, reason, raw",
    "responses": "key, batch_key, model_key, prompt_key, sampling, replies, characters, grams, repeated, cut",
}
"""Of a table that says beside its results when it was made, and how long that took."""


def rows(store: Path, table: str, columns: str = "") -> list[str]:
    columns = columns or COLUMNS.get(table, "*")
    with closing(sqlite3.connect(store)) as connection:
        return sorted(map(repr, connection.execute(f"SELECT {columns} FROM {table}").fetchall()))


def results(store: Path) -> dict[str, list[str]]:
    return {table: rows(store, table) for table in RESULTS}


def made(store: Path) -> set[str]:
    """What was derived, with the seconds it took: made again, these would differ."""
    return set(rows(store, "derivations", "key, seconds"))


@pytest.fixture(scope="module")
def folder(tiny_models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe and `whole.sqlite3`, which an uninterrupted run made of it."""
    folder = tmp_path_factory.mktemp("kill")
    write_recipe(tiny_models, folder)
    whole = program(*command("whole.sqlite3"), cwd=folder)
    assert whole.returncode == 0, whole.stderr
    return folder


def command(store: str) -> list[str]:
    return ["run", "dadpo", "--recipe", "recipe.yaml", "--store", store]


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *map(str, arguments)], cwd=folder, env=environment(), **pipes)


@pytest.fixture
def die(folder: Path) -> Iterator[Callable[[Stage, str], int]]:
    """Run the command on `broken.sqlite3` until it dies in that stage, behind that table's row."""
    words = [sys.executable, str(DYING), *command("broken.sqlite3")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=folder, env=environment(), **pipes) as process:

        def once(stage: Stage, table: str) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{stage} {table}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield once


def test_a_run_killed_in_every_stage_ends_as_an_uninterrupted_one(
    folder: Path, die: Callable[[Stage, str], int]
) -> None:
    whole, broken = folder / "whole.sqlite3", folder / "broken.sqlite3"
    before: set[str] = set()
    for stage, table in KILLS:
        assert die(stage, table) == -signal.SIGKILL, (stage, table)
        assert before <= made(broken)  # nothing that was finished is made again
        before = made(broken)
        if table in ("responses", "signals", "divergences", "ratings"):
            assert set(rows(broken, table)) < set(rows(whole, table))
    finished = program(*command("broken.sqlite3"), cwd=folder)
    assert finished.returncode == 0, finished.stderr
    assert before <= made(broken)
    assert results(broken) == results(whole)
    assert not list((folder / "broken").glob(".*.partial"))
    assert not (folder / "broken" / "unfinished").exists()
    assert rows(broken, "metrics", "derivation_key, step") == rows(whole, "metrics", "derivation_key, step")
    boards = [(folder / f"{name}.md").read_text().replace(name, "") for name in ("whole", "broken")]
    assert boards[0] == boards[1]


def test_a_second_run_does_nothing_again(folder: Path) -> None:
    store = folder / "whole.sqlite3"
    before = {table: rows(store, table) for table in (*RESULTS, "derivations", "metrics")}
    again = program(*command("whole.sqlite3"), cwd=folder)
    assert again.returncode == 0
    assert " in " not in "".join(line for line in again.stdout.splitlines(True) if line.startswith("  "))
    assert {table: rows(store, table) for table in (*RESULTS, "derivations", "metrics")} == before


def test_two_runs_at_once_share_a_store(folder: Path) -> None:
    both = [start(folder, "-m", "dadpo_bench", *command("both.sqlite3")) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert errors == ""  # "database is locked" least of all
    assert results(folder / "both.sqlite3") == results(folder / "whole.sqlite3")


def test_ctrl_c_is_answered_with_one_line_and_keeps_what_is_done(folder: Path) -> None:
    process = start(folder, "-m", "dadpo_bench", *command("stopped.sqlite3"))
    assert process.stdout is not None
    while process.stdout.readline().strip() != Stage.dsft:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == "stopped; the same command goes on from here\n"
    kept = set(rows(folder / "stopped.sqlite3", "responses"))
    assert kept
    assert kept < set(rows(folder / "whole.sqlite3", "responses"))
