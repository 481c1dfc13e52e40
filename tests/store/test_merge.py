"""Stores made apart become one: united by key, contradictions told and nothing written, nothing ever doubled."""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from typer.testing import CliRunner, Result

from dadpo_bench import merging
from dadpo_bench.cli import app
from dadpo_bench.history.runs import runs_of
from dadpo_bench.leaderboard import render
from dadpo_bench.store import insert_missing, open_store, publish, schema
from dadpo_bench.store.sameness import SAMENESS
from tests.postgres import Server
from tests.store.members import DAY, member


def merge(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["merge", *map(str, arguments)])


def count(where: object, table: type[schema.Base]) -> int:
    with closing(open_store(str(where), create=False)) as store, store.read() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


def board(where: object) -> list[str]:
    """Without the line that names the file."""
    with closing(open_store(str(where), create=False)) as store:
        return render(store).split("\n")[3:]


def everything(where: object) -> dict[str, Any]:
    """Every row of every table, in an order of its own."""
    with closing(open_store(str(where), create=False)) as store, store.read() as session:
        tables = schema.Base.metadata.sorted_tables
        return {table.name: Counter(map(repr, session.execute(select(table)))) for table in tables}


def change(where: object, table: Any, **values: Any) -> None:
    with closing(open_store(str(where))) as store, store.write() as session:
        session.execute(update(table).values(**values))


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    """Two members' stores, of seeds 0 and 1."""
    return member(tmp_path / "a.sqlite3", 0), member(tmp_path / "b.sqlite3", 1, later=3)


def test_members_of_an_array_make_one_board_whatever_the_order(two: tuple[str, str], tmp_path: Path) -> None:
    assert merge(*two, "--into", tmp_path / "ab.sqlite3").exit_code == 0
    assert merge(*two[::-1], "--into", tmp_path / "ba.sqlite3").exit_code == 0
    assert board(tmp_path / "ab.sqlite3") == board(tmp_path / "ba.sqlite3")
    with closing(open_store(str(tmp_path / "ab.sqlite3"))) as store, store.read() as session:
        scores = [
            score.values["seeds"] for score in session.scalars(select(schema.Score)) if score.contestant == "dadpo"
        ]
    assert scores == [2]


def test_a_store_may_be_merged_into_any_database_and_back(two: tuple[str, str], address: str, tmp_path: Path) -> None:
    assert merge(*two, "--into", address).exit_code == 0
    assert merge(address, "--into", tmp_path / "back.sqlite3").exit_code == 0
    assert merge(*two, "--into", tmp_path / "direct.sqlite3").exit_code == 0
    assert everything(tmp_path / "back.sqlite3") == everything(tmp_path / "direct.sqlite3")
    assert board(address) == board(tmp_path / "direct.sqlite3")


def test_twice_is_once(two: tuple[str, str], address: str) -> None:
    merge(*two, "--into", address)
    before = everything(address)
    again = merge(two[1], *two, two[1], "--into", address)
    assert again.exit_code == 0, again.output
    assert everything(address) == before
    assert count(address, schema.Run) == count(address, schema.StageTime) == 2


def test_what_tells_only_when_where_and_how_fast_is_no_conflict(tmp_path: Path) -> None:
    first, slower = member(tmp_path / "a.sqlite3"), member(tmp_path / "b.sqlite3", later=5)
    change(slower, schema.Model, name="elsewhere")
    change(slower, schema.Verdict, tokens=9, resolved_model="build 2", asked=DAY)
    assert merge(first, slower, "--into", tmp_path / "c.sqlite3").exit_code == 0
    assert count(tmp_path / "c.sqlite3", schema.Run) == 2


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"outcomes": ("loss",)}, "verdicts"),
        ({"teacher": "Another answer"}, "responses"),
        ({"weights": "other"}, "contestants"),
    ],
)
def test_a_contradiction_is_told_with_both_stores_and_nothing_is_written(
    second: dict[str, Any], told: str, tmp_path: Path
) -> None:
    a, b = member(tmp_path / "a.sqlite3"), member(tmp_path / "b.sqlite3", **second)
    target = tmp_path / "c.sqlite3"
    result = merge(a, b, "--into", target)
    assert result.exit_code == 2
    line = next(line for line in result.stdout.splitlines() if line.startswith(told))
    assert f" in {a}, " in line
    assert line.endswith(f" in {b}")
    assert "nothing was written" in result.stderr
    assert "--keep-first" in result.stderr
    assert not list(tmp_path.glob("c.*"))
    before = Path(a).read_bytes()
    assert merge(b, "--into", a).exit_code == 2
    assert Path(a).read_bytes() == before


def test_a_conflict_names_who_brought_the_row_that_was_there_first(tmp_path: Path) -> None:
    into, a = member(tmp_path / "into.sqlite3", 7), member(tmp_path / "a.sqlite3", 1)
    b = member(tmp_path / "b.sqlite3", 1, outcomes=("loss",))
    told = json.loads(merge(a, b, "--into", into, "--json").stdout)
    assert {tuple(conflict["stores"]) for conflict in told["conflicts"]} == {(a, b)}
    assert told["tables"]["verdicts"]["contested"] == len(told["conflicts"]) == 8
    assert told["conflicts"][0]["differing"]["outcome"] == ["win", "loss"]


def test_keep_first_takes_nothing_that_leans_on_a_row_that_is_not_kept(tmp_path: Path) -> None:
    a = member(tmp_path / "a.sqlite3", 0)
    b = member(tmp_path / "b.sqlite3", 1, teacher="Another answer")
    assert merge(a, b, "--into", tmp_path / "c.sqlite3", "--keep-first").exit_code == 0
    with closing(open_store(str(tmp_path / "c.sqlite3"))) as store, store.read() as session:
        assert session.get_one(schema.Response, "teacherNone/0").replies[0]["text"] == "A teacher's answer 0"
        judged = set(session.scalars(select(schema.Verdict.contestant_response)))
    assert judged == {f"dadpo0/{i}" for i in range(6)}  # the other's verdicts are on words that are not kept


def test_of_two_trainings_of_one_key_the_steps_are_not_mixed(tmp_path: Path) -> None:
    a = member(tmp_path / "a.sqlite3")
    b = member(tmp_path / "b.sqlite3", weights="other")
    more = {"derivation_key": "training0", "step": 3, "values": {"loss": 0.5}}
    with closing(open_store(b)) as store, store.write() as session:
        insert_missing(session, schema.Metric, [more])
    assert merge(a, b, "--into", tmp_path / "c.sqlite3", "--keep-first").exit_code == 0
    assert count(tmp_path / "c.sqlite3", schema.Metric) == 2


def test_of_a_training_that_nobody_finished_the_longer_curve_is_taken(tmp_path: Path) -> None:
    a, b = member(tmp_path / "a.sqlite3", 1), member(tmp_path / "b.sqlite3", 2)
    for where, steps in ((a, 3), (b, 5)):
        with closing(open_store(where)) as store, store.write() as session:
            rows = [{"derivation_key": "begun", "step": s, "values": {"loss": float(steps)}} for s in range(steps)]
            insert_missing(session, schema.Metric, rows)
    for order, name in (((a, b), "ab.sqlite3"), ((b, a), "ba.sqlite3")):
        assert merge(*order, "--into", tmp_path / name).exit_code == 0
        assert count(tmp_path / name, schema.Metric) == 2 + 2 + 5


def test_an_answer_takes_the_place_of_a_failure_and_never_the_other_way(tmp_path: Path) -> None:
    answered, failed = member(tmp_path / "a.sqlite3"), member(tmp_path / "b.sqlite3", outcomes=("unscored",))
    for order, name in (((answered, failed), "ab.sqlite3"), ((failed, answered), "ba.sqlite3")):
        assert merge(*order, "--into", tmp_path / name).exit_code == 0
        assert board(tmp_path / name) == board(answered)


@pytest.mark.parametrize(("precision", "apart", "code"), [("float32/float32", 0.5, 2), ("bfloat16/bfloat16", 0.5, 0)])
def test_log_probs_may_differ_by_rounding(precision: str, apart: float, code: int, tmp_path: Path) -> None:
    signal = {"model_key": "m", "tokens_key": "t", "precision": precision, "scorer_version": 1, "tokens": 20}
    for name, total in (("a", -40.0), ("b", -40.0 - apart)):
        with closing(open_store(member(tmp_path / f"{name}.sqlite3"))) as store, store.write() as session:
            insert_missing(session, schema.Signal, [{**signal, "total": total}])
    paths = [tmp_path / f"{name}.sqlite3" for name in ("a", "b")]
    assert merge(*paths, "--into", tmp_path / "c.sqlite3").exit_code == code


def test_a_run_that_went_on_meanwhile_is_brought_up_to_date(tmp_path: Path) -> None:
    source = member(tmp_path / "a.sqlite3")
    change(source, schema.Run, finished=None)
    target = tmp_path / "c.sqlite3"
    merge(source, "--into", target)
    change(source, schema.Run, finished=DAY)
    with closing(open_store(source)) as store, store.write() as session:
        session.add(schema.StageTime(run_id=1, position=1, stage="dsft", seconds=1.0, peak_bytes=8))
    merge(source, "--into", target)
    with closing(open_store(str(target))) as store, store.read() as session:
        (run,) = runs_of(session)
    assert run.finished == DAY
    assert [stage.stage for stage in run.stages] == ["models", "dsft"]


def test_sources_are_only_read(two: tuple[str, str], tmp_path: Path) -> None:
    published = tmp_path / "published.sqlite3"
    with closing(open_store(two[0])) as store:
        publish(store, published)
    before = published.read_bytes(), Path(two[1]).read_bytes()
    assert merge(published, two[1], "--into", tmp_path / "c.sqlite3").exit_code == 0
    assert (published.read_bytes(), Path(two[1]).read_bytes()) == before


def test_an_older_source_is_left_alone_and_told_how_to_upgrade(two: tuple[str, str], tmp_path: Path) -> None:
    with closing(sqlite3.connect(two[0])) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '0003'")
        raw.commit()
    result = merge(*two, "--into", tmp_path / "c.sqlite3")
    assert result.exit_code == 2
    assert f"dadpo-bench db upgrade --store {two[0]}" in result.stderr
    assert not list(tmp_path.glob("c.*"))


def test_a_missing_source_is_told_before_anything_is_made(two: tuple[str, str], tmp_path: Path) -> None:
    result = merge(two[0], tmp_path / "nowhere.sqlite3", "--into", tmp_path / "c.sqlite3")
    assert (result.exit_code, "no store at" in result.stderr) == (2, True)
    assert not list(tmp_path.glob("c.*"))


def test_a_store_is_not_merged_into_itself(two: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "link.sqlite3").symlink_to(two[0])
    result = merge(tmp_path / "link.sqlite3", "--into", two[0])
    assert (result.exit_code, "merged into itself" in result.stderr) == (2, True)


def test_nor_is_a_database_by_another_of_its_addresses(postgres: Server) -> None:
    address = postgres.database()
    open_store(address).close()
    result = merge(address.replace("+psycopg", ""), "--into", address.replace("postgres:@", "postgres:secret@"))
    assert (result.exit_code, "merged into itself" in result.stderr) == (2, True)
    assert "secret" not in result.output


def test_a_merge_that_is_killed_half_way_leaves_the_store_as_it_was(
    two: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = member(tmp_path / "c.sqlite3", 2)
    before = everything(target)
    take = merging.Union.take

    def dying(self: merging.Union, source: merging.Part) -> None:
        take(self, source)
        if source.name == two[1]:
            raise KeyboardInterrupt

    with monkeypatch.context() as then:
        then.setattr(merging.Union, "take", dying)
        assert merge(*two, "--into", target).exit_code == 130
    assert everything(target) == before
    assert merge(*two, "--into", target).exit_code == 0
    assert count(target, schema.Contestant) == 4


def test_boards_whose_scores_were_not_computed_are_computed_by_the_same_command(
    two: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as then:
        then.setattr(merging, "save_scores", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert merge(*two, "--into", tmp_path / "c.sqlite3").exit_code == 130
    assert count(tmp_path / "c.sqlite3", schema.Score) == 0
    assert merge(*two, "--into", tmp_path / "c.sqlite3").exit_code == 0
    assert count(tmp_path / "c.sqlite3", schema.Score) == 2


def test_every_table_is_merged_or_said_not_to_be() -> None:
    otherwise = {"metrics", "judge_evaluations", "runs", "stage_times", "scores", "activities"}
    assert {same.table.__tablename__ for same in SAMENESS} | otherwise == set(schema.Base.metadata.tables)
