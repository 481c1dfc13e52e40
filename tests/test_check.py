"""`check` fails only for a drop that the data can prove."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dadpo_bench.cli import app
from dadpo_bench.leaderboard import write_board
from dadpo_bench.scores import save_scores
from dadpo_bench.store import Store, open_store, save_task, schema
from dadpo_bench.tasks import Task
from dadpo_bench.types import Prompt

PROMPTS = 40


def build(path: Path, *wins: int, protocol: str = "p", settings: dict[str, float] | None = None) -> Store:
    """A store in which `dadpo` wins so many of 40 prompts against the teacher, seed by seed."""
    store = open_store(str(path))
    task = Task(
        name="t",
        domain="in",
        split="heldout",
        prompts=tuple(Prompt(id=str(i), turns=(f"{i}?",)) for i in range(PROMPTS)),
    )
    with store.write() as session:
        save_task(session, task)
        session.add(
            schema.Protocol(key=protocol, name="r", settings={"teacher": {"model": "m"}, "student": {"model": "s"}})
        )
        identity = {"judge": "j"}
        session.add(schema.Judge(key="j", name="j", kind="pointwise", proxy=True, identity=identity))
        session.flush()
        everybody: list[tuple[str, str, int | None, int]] = [("teacher", "teacher", None, PROMPTS)]
        everybody += [("method", "dadpo", seed, count) for seed, count in enumerate(wins)]
        for kind, name, seed, _ in everybody:
            key = f"{name}{seed}"
            session.add(
                schema.Contestant(
                    key=key,
                    protocol_key=protocol,
                    name=name,
                    kind=kind,
                    seed=seed,
                    settings=settings or {},
                    model_key=key,
                )
            )
        session.flush()
        for number, prompt in enumerate(task.prompts):
            for _, name, seed, count in everybody:
                contestant = f"{name}{seed}"
                key = f"{contestant}/{number}"
                reply = {"text": "x", "token_ids": [], "finish": "stop"}
                session.add(
                    schema.Response(
                        key=key,
                        batch_key=key,
                        model_key=contestant,
                        prompt_key=prompt.key,
                        sampling={},
                        replies=[reply],
                        characters=1,
                        grams=0,
                        repeated=0,
                        cut=False,
                    )
                )
                session.flush()
                answer = {"contestant_key": contestant, "task_key": task.key, "prompt_key": prompt.key}
                session.add(schema.Answer(**answer, response_key=key))
                value = 1.0 if name == "teacher" else 2.0 * (number < count)
                session.add(schema.Rating(judge_key="j", response_key=key, value=value, reason=""))
        session.add(
            schema.Run(
                protocol_key=protocol,
                started=datetime(2026, 1, 1, tzinfo=UTC),
                finished=None,
                arguments={},
                recipe={},
                environment={"precision": "x", "device": "cpu", "versions": {"torch": "1", "transformers": "1"}},
            )
        )
    save_scores(store, protocol, "j")
    return store


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [(20, 20, 0), (20, 18, 0), (30, 8, 1), (8, 30, 0)],
    ids=["equal", "a drop within noise", "a proven drop", "a gain"],
)
def test_only_a_proven_drop_fails(before: int, after: int, code: int, tmp_path: Path) -> None:
    old, new = build(tmp_path / "old.sqlite3", before), build(tmp_path / "new.sqlite3", after)
    result = CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name])
    assert result.exit_code == code
    assert ("proven drop: dadpo on t, judge j" in result.stdout) == (code == 1)


def test_a_store_that_cannot_be_compared_is_no_proven_drop(tmp_path: Path) -> None:
    old, new = build(tmp_path / "old.sqlite3", 20), build(tmp_path / "new.sqlite3", 20)
    with closing(sqlite3.connect(new.name)) as raw:
        raw.execute("DROP TABLE scores")
    result = CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name])
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_drop_that_the_seeds_do_not_agree_on_is_not_proven(tmp_path: Path) -> None:
    # Averaged over seeds 30 → 19 of 40 prompts; but one of three new seeds did no worse.
    old, new = build(tmp_path / "old.sqlite3", 30, 30, 30), build(tmp_path / "new.sqlite3", 30, 4, 23)
    result = CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name, "--json"])
    (row,) = json.loads(result.stdout)["rows"]
    assert row["p_holm"] < 0.05
    assert row["high"] >= 0
    assert (row["seeds_before"], row["seeds_after"], row["dropped"]) == (3, 3, False)
    assert result.exit_code == 0


def test_stores_of_unequal_seeds_are_compared_and_a_single_seed_is_told(tmp_path: Path) -> None:
    old, new = build(tmp_path / "old.sqlite3", 30, 31, 29), build(tmp_path / "new.sqlite3", 8)
    result = CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name])
    assert result.exit_code == 1
    assert "one training seed on a side" in result.stdout


def test_a_board_can_be_split_by_seed_and_its_file_stays(tmp_path: Path) -> None:
    store = build(tmp_path / "a.sqlite3", 10, 20)
    write_board(store)
    before = store.board.read_text(encoding="utf-8")
    printed = CliRunner().invoke(app, ["leaderboard", "--store", store.name, "--per-seed"])
    assert "| dadpo, seed 0 | 25.0 (" in printed.stdout
    assert "| dadpo, seed 1 | 50.0 (" in printed.stdout
    assert store.board.read_text(encoding="utf-8") == before
    rows = json.loads(
        CliRunner().invoke(app, ["leaderboard", "--store", store.name, "--per-seed", "--format", "json"]).stdout
    )
    assert {r["contestant"]: r["win_rate"] for r in rows if r["win_rate"]} == {"dadpo, seed 0": 25, "dadpo, seed 1": 50}


def test_a_board_is_checked_whole_or_not_at_all(tmp_path: Path) -> None:
    store = build(tmp_path / "a.sqlite3", 10)
    result = CliRunner().invoke(app, ["leaderboard", "--store", store.name, "--check", "--per-seed"])
    assert result.exit_code == 2
    assert "--check compares the board's file" in result.stderr


def test_stores_without_a_shared_row_are_not_compared(tmp_path: Path) -> None:
    old, new = build(tmp_path / "old.sqlite3", 20), build(tmp_path / "new.sqlite3", 20, protocol="other")
    result = CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name])
    assert result.exit_code == 2
    assert "share no row" in result.stderr


def test_equal_names_with_other_settings_are_not_compared(tmp_path: Path) -> None:
    old = build(tmp_path / "old.sqlite3", 30, settings={"beta": 0.1})
    new = build(tmp_path / "new.sqlite3", 8, settings={"beta": 50.0})
    result = CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name])
    assert result.exit_code == 2
    later = build(tmp_path / "later.sqlite3", 8, settings={"beta": 0.1, "added": 1.0})
    result = CliRunner().invoke(app, ["check", "--store", later.name, "--against", old.name])
    assert "proven drop" in result.stdout


def test_a_board_that_would_change_does_not_pass_its_check(tmp_path: Path) -> None:
    store = build(tmp_path / "a.sqlite3", 10)
    write_board(store)
    check = ["leaderboard", "--store", store.name, "--check"]
    assert CliRunner().invoke(app, check).exit_code == 0
    with store.write() as session:
        for number in range(20):
            session.get_one(schema.Rating, ("j", f"dadpo0/{number}")).value = 2.0
    result = CliRunner().invoke(app, check)
    assert result.exit_code == 1
    assert "+| dadpo | 50.0" in result.stdout
