"""Stores: migrated when opened, published read-only, boards byte-identical."""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import delete, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from typer.testing import CliRunner

from dadpo_bench.cli import app
from dadpo_bench.engine import LocalEngine
from dadpo_bench.errors import UserError
from dadpo_bench.leaderboard import render
from dadpo_bench.pipeline import run
from dadpo_bench.plan import make_plan
from dadpo_bench.progress import silent
from dadpo_bench.recipe import load_recipe
from dadpo_bench.stages import signals
from dadpo_bench.stages.bench import Bench
from dadpo_bench.store import Store, connection, insert_missing, open_store, publish, schema
from dadpo_bench.store.judgments import AT_RISK, Keeper, keep_judgments, keeping
from tests.conftest import write_recipe

KEYS = [
    "contestant",
    "task",
    "judge",
    "baseline",
    "seeds",
    "prompts",
    "unscored",
    "win_rate",
    "standard_error",
    "ci_low",
    "ci_high",
    "win_share",
    "tie_share",
    "loss_share",
    "preference_rate",
    "flip_rate",
    "mean_length",
    "cut_share",
    "repetition",
    "kl_from_teacher",
    "kl_to_teacher",
]


def fill(store: Store, recipe: Path, *changes: str, methods: tuple[str, ...] = ("dadpo",)) -> None:
    plan = make_plan(load_recipe(str(recipe), changes, "longer"), list(methods), 1)
    run(Bench(store, LocalEngine(), silent()), plan, {})


@pytest.fixture(scope="module")
def finished(tiny_models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and a store `local.sqlite3` after a whole run."""
    folder = tmp_path_factory.mktemp("finished")
    store = open_store(str(folder / "local.sqlite3"))
    fill(store, write_recipe(tiny_models, folder))
    store.close()
    return folder


@pytest.fixture
def recipe(finished: Path) -> Path:
    """The recipe of `filled`."""
    return finished / "recipe.yaml"


@pytest.fixture
def filled(finished: Path, tmp_path: Path) -> Iterator[Store]:
    """A copy of the finished store, with its checkpoints, for one test."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    store = open_store(str(tmp_path / "local.sqlite3"))
    yield store
    store.close()


def count(store: Store, table: type[schema.Base]) -> int:
    with store.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_published_store_reads_alike_leaves_no_files_and_is_never_written(filled: Store, tmp_path: Path) -> None:
    target = tmp_path / "published.sqlite3"
    publish(filled, target)
    published = open_store(str(target))
    assert render(published).split("\n")[3:] == render(filled).split("\n")[3:]
    assert not list(tmp_path.glob("published.sqlite3-*"))
    with closing(sqlite3.connect(target)) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    with pytest.raises(UserError, match="never written"), published.write():
        pass


def test_publishing_a_store_over_itself_is_refused(filled: Store) -> None:
    assert filled.path is not None
    with pytest.raises(UserError, match="the store itself"):
        publish(filled, filled.path)
    assert count(filled, schema.Response)


def test_what_is_done_again_for_a_publication_is_done_in_the_copy(filled: Store, tmp_path: Path) -> None:
    def forget(copy: Store) -> None:
        with copy.write() as session:
            session.execute(delete(schema.Score))

    target = tmp_path / "published.sqlite3"
    publish(filled, target, forget)
    with closing(open_store(str(target))) as published:
        assert (count(published, schema.Score), count(filled, schema.Score) > 0) == (0, True)
    assert not list(tmp_path.glob("published.sqlite3-*")) + list(tmp_path.glob(".*"))


def test_a_failed_publication_leaves_the_earlier_one(filled: Store, tmp_path: Path) -> None:
    target = tmp_path / "published.sqlite3"
    publish(filled, target)
    before = target.read_bytes()
    broken = Store(filled.engine, tmp_path / "recipe.yaml", published=False)
    with pytest.raises(UserError, match="no usable SQLite store"):
        publish(broken, target)
    assert target.read_bytes() == before
    assert not list(tmp_path.glob(".*.partial"))


def test_a_run_on_a_published_store_is_refused_and_changes_nothing(filled: Store, tmp_path: Path) -> None:
    target = tmp_path / "published.sqlite3"
    publish(filled, target)
    before = target.read_bytes()
    result = CliRunner().invoke(
        app, ["run", "dadpo", "--recipe", str(tmp_path / "recipe.yaml"), "--store", str(target)]
    )
    assert result.exit_code == 2
    assert "is a published store, or one without permission, and is never written" in result.stderr
    assert target.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "done"),
    [
        ("seed=0", 7),
        ("evaluation.sampling.max_new_tokens=6", 5),
        ("evaluation.canary_prompts=3", 6),
        ("name=another", 7),
        ("student_sampling.temperature=0.5", 2),
    ],
)
def test_a_plan_says_what_a_store_holds_and_changes_nothing(change: str, done: int, finished: Path) -> None:
    before = sorted(p.name for p in finished.rglob("*"))
    plan = ["run", "dadpo", "--recipe", str(finished / "recipe.yaml"), "--judge", "longer"]
    result = CliRunner().invoke(
        app, [*plan, "--store", str(finished / "local.sqlite3"), "--set", change, "--dry-run", "--json"]
    )
    assert result.exit_code == 0, result.stderr
    assert sum(stage["done"] for stage in json.loads(result.stdout)) == done
    assert sorted(p.name for p in finished.rglob("*")) == before


def test_a_plan_says_what_a_store_holds_without_the_judges_key(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    plan = ["run", "dadpo", "--recipe", str(finished / "recipe.yaml"), "--judge", "chat:gpt-4o", "--dry-run", "--json"]
    result = CliRunner().invoke(app, [*plan, "--store", str(finished / "local.sqlite3")])
    assert result.exit_code == 0, result.stderr
    assert [stage["stage"] for stage in json.loads(result.stdout) if not stage["done"]] == ["judge"]


def test_a_fresh_store_has_the_tables_of_the_schema(address: str) -> None:
    with closing(open_store(address)) as store, store.engine.connect() as raw:
        differences = compare_metadata(MigrationContext.configure(raw), schema.Base.metadata)
    assert differences == []


def test_a_store_that_another_process_is_just_making_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")  # in a store that is not in WAL mode yet, SQLite refuses the switch at once
        Timer(0.2, other.execute, ("ROLLBACK",)).start()
        open_store(str(path)).close()


def test_the_same_store_gives_the_same_bytes(filled: Store) -> None:
    assert render(filled) == render(filled)


def test_check_of_a_board_shows_what_would_change(filled: Store) -> None:
    arguments = ["leaderboard", "--check", "--store", filled.name]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    filled.board.write_text(filled.board.read_text().replace("Leaderboard", "Winners"))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "-# Winners" in result.stdout
    assert "+# Leaderboard" in result.stdout


def test_rows_for_machines_have_every_column(filled: Store) -> None:
    rows = json.loads(CliRunner().invoke(app, ["leaderboard", "--format", "json", "--store", filled.name]).stdout)
    assert rows
    assert all(set(KEYS) <= set(row) for row in rows)
    assert all(row["flip_rate"] is None for row in rows)  # a pointwise judge sees no order


def test_other_betas_score_no_signal_again(filled: Store, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = count(filled, schema.Signal)
    assert before == 24  # six prompts, two responses, two models
    monkeypatch.setattr(signals, "sequence_log_probs", None)
    fill(filled, recipe, "methods.dadpo.beta_teacher=0.5")
    assert count(filled, schema.Signal) == before
    with filled.read() as session:
        labels = set(session.scalars(select(schema.Score.contestant)))
    assert {"dadpo (beta_teacher=0.1)", "dadpo (beta_teacher=0.5)"} <= labels


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store as the first version made it."""
    upgrade = connection.command.upgrade
    with monkeypatch.context() as then:
        then.setattr(connection.command, "upgrade", lambda config, revision: upgrade(config, "0001"))
        store = open_store(str(tmp_path / "old.sqlite3"))
    yield store
    store.close()


def test_an_older_store_is_upgraded_after_a_backup(old: Store, tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite3"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("INSERT INTO prompts VALUES ('p', '[\"Hi?\"]', '')")
        raw.execute("INSERT INTO responses VALUES ('r', 'b', 'm', 'p', '{}', '[]')")
        raw.execute("INSERT INTO judges VALUES ('j', 'pmi', 'pointwise', 1, '{}')")
        raw.execute("INSERT INTO ratings VALUES ('j', 'r', 0.5, '')")
        raw.commit()
        # Not closed: as after a kill, the rows lie in the -wal file alone.
        reopened = open_store(str(path))
    with reopened.read() as session:
        assert session.get_one(schema.Prompt, "p").reference == []
        assert (rating := session.get_one(schema.Rating, ("j", "r"))).value == 0.5
        assert (rating.raw, rating.tokens, rating.by_turn, rating.asked) == ("", 0, [], None)
    (backup,) = tmp_path.glob("old.backup-0001.sqlite3")
    with closing(sqlite3.connect(backup)) as raw:
        assert raw.execute("SELECT value FROM ratings").fetchall() == [(0.5,)]
    reopened.close()


def test_an_older_published_store_is_upgraded_on_demand_alone(old: Store, tmp_path: Path) -> None:
    path = tmp_path / "published.sqlite3"
    publish(old, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="db upgrade --store"):
        open_store(str(path))
    assert path.read_bytes() == before
    done = CliRunner().invoke(app, ["db", "upgrade", "--store", str(path)])
    assert (done.exit_code, done.output) == (0, f"{path} is up to date\n")
    with closing(open_store(str(path))) as upgraded:
        assert upgraded.published
    assert sorted(tmp_path.iterdir()) == sorted([path, *tmp_path.glob("old.sqlite3*")])


def test_a_published_store_of_this_version_is_not_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "published.sqlite3"
    with closing(open_store(str(tmp_path / "x.sqlite3"))) as store:
        publish(store, path)
    before, made = path.read_bytes(), path.stat()
    done = CliRunner().invoke(app, ["db", "upgrade", "--store", str(path)])
    assert (done.exit_code, done.output) == (0, f"{path} is up to date\n")
    assert path.read_bytes() == before
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


@pytest.fixture
def judged(address: str) -> Iterator[Store]:
    """A store with two responses that judge `j` may rate."""
    store = open_store(address)
    with store.write() as session:
        insert_missing(session, schema.Prompt, [{"key": "p", "turns": ["x"], "system": ""}])
        insert_missing(
            session, schema.Judge, [{"key": "j", "name": "j", "kind": "pointwise", "proxy": False, "identity": {}}]
        )
        response = {"batch_key": "b", "model_key": "m", "prompt_key": "p", "sampling": {}, "replies": []}
        response |= {"characters": 0, "grams": 0, "repeated": 0, "cut": False}
        insert_missing(session, schema.Response, [{"key": key, **response} for key in ("r", "s")])
    yield store
    store.close()


def rating(value: float | None, reason: str = "", response: str = "r") -> dict[str, Any]:
    return {"judge_key": "j", "response_key": response, "value": value, "by_turn": [], "reason": reason}


def rated(store: Store, response: str = "r") -> float | None:
    with store.read() as session:
        return session.get_one(schema.Rating, ("j", response)).value


def test_a_failure_never_replaces_what_a_judge_said(judged: Store) -> None:
    kept = []
    for value, reason in ((None, "slow"), (0.5, ""), (None, "api error"), (0.7, "")):
        with judged.write() as session:
            keep_judgments(session, schema.Rating, [rating(value, reason)])
        kept.append(rated(judged))
    assert kept == [None, 0.5, 0.5, 0.5]


def test_within_one_batch_too_a_failure_replaces_no_answer(judged: Store) -> None:
    with judged.write() as session:
        keep_judgments(session, schema.Rating, [rating(None, "slow"), rating(0.5), rating(None, "api error")])
    assert rated(judged) == 0.5


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()], ids=["sqlite", "postgresql"])
def test_an_answer_is_guarded_by_the_statement_itself(dialect: Any) -> None:
    said = " ".join(str(keeping(schema.Verdict, dialect.name).compile(dialect=dialect)).split())
    assert 'ON CONFLICT (judge_key, contestant_response, baseline_response, "order") DO UPDATE SET' in said
    assert "WHERE verdicts.outcome =" in said


def test_what_is_to_be_kept_is_kept_whatever_ends_the_work(judged: Store) -> None:
    def bring() -> None:
        with Keeper(judged, schema.Rating) as keeper:
            keeper.keep(rating(0.5))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring()
    assert rated(judged) == 0.5


def test_what_is_to_be_kept_is_soon_in_the_store(judged: Store) -> None:
    committed = Event()
    event.listen(judged.engine.pool, "checkin", lambda *_: committed.set())  # the first event behind a commit
    with Keeper(judged, schema.Rating) as keeper:
        keeper.keep(rating(0.5))
        assert committed.wait(5)
        assert rated(judged) == 0.5


def test_a_store_that_cannot_be_written_stops_whoever_brings_more(judged: Store) -> None:
    def bring() -> None:
        with Keeper(judged, schema.Rating) as keeper:
            for _ in range(AT_RISK + 1):
                keeper.keep(rating(0.5))

    judged.published = True
    with pytest.raises(UserError, match="never written"):
        bring()


def test_a_password_never_shows_in_a_stores_name() -> None:
    with pytest.raises(UserError) as caught:
        open_store("postgresql+nothing://me:secret@127.0.0.1/x")
    assert "secret" not in str(caught.value)


def test_an_empty_file_is_told_and_stays_empty(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite3").touch()
    result = CliRunner().invoke(app, ["leaderboard", "--store", str(tmp_path / "x.sqlite3")])
    assert (result.exit_code, "is empty" in result.stderr) == (2, True)
    assert (tmp_path / "x.sqlite3").stat().st_size == 0


@pytest.mark.parametrize("command", ["leaderboard --format json", "runs", "comparisons --json"])
def test_a_store_may_be_read_without_permission_to_write(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "x.sqlite3"
    shutil.copy("results/reference.sqlite3", store)
    with closing(sqlite3.connect(store)) as raw:
        raw.execute("PRAGMA application_id=0")
        raw.execute("PRAGMA journal_mode=WAL")
    before = store.read_bytes()
    permitted = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, *mode: tmp_path not in Path(path).parents and permitted(path, *mode))
    result = CliRunner().invoke(app, [*command.split(), "--store", str(store)])
    assert result.exit_code == 0, result.output
    assert store.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.sqlite3"]
