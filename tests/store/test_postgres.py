"""A team's store on a PostgreSQL server: what SQLite holds it holds, alike, for many who write at once."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import create_engine, func, inspect, select, text
from typer.testing import CliRunner

from dadpo_bench.cli import app
from dadpo_bench.errors import UserError
from dadpo_bench.leaderboard import render
from dadpo_bench.report.serving import Now
from dadpo_bench.store import connection, insert_missing, open_store, schema
from dadpo_bench.store.rows import tuples, upsert
from tests.conftest import environment, write_recipe
from tests.postgres import Server
from tests.store.members import member

RESULTS = (schema.Score, schema.Response, schema.Signal, schema.Divergence, schema.Model, schema.Answer)
"""A function of the recipe alone, but for seconds."""


@pytest.fixture
def database(postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return postgres.database()


def rows(where: object, table: type[schema.Base]) -> list[str]:
    columns = [column for column in table.__table__.columns if column.name not in ("seconds", "asked")]
    with closing(open_store(str(where), create=False)) as store, store.read() as session:
        return sorted(map(repr, session.execute(select(*columns)).all()))


def test_a_store_of_the_first_version_is_upgraded_step_by_step(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = command.upgrade
    with monkeypatch.context() as then:
        then.setattr(connection.command, "upgrade", lambda config, _: upgrade(config, "0001"))
        open_store(database).close()
    said = [{"text": "a b c d a b c d", "token_ids": [], "finish": "length"}]
    engine = create_engine(database)
    with engine.begin() as raw:
        raw.execute(text("INSERT INTO prompts VALUES ('p', '[\"Hi?\"]', '')"))
        raw.execute(text("INSERT INTO responses VALUES ('r', 'b', 'm', 'p', '{}', :said)"), {"said": json.dumps(said)})
        raw.execute(text("INSERT INTO judges VALUES ('j', 'pmi', 'pointwise', true, '{}')"))
        raw.execute(text("INSERT INTO ratings VALUES ('j', 'r', 0.5, '')"))
    for revision in ("0002", "0003", "0004"):
        with monkeypatch.context() as then:
            then.setattr(connection.command, "upgrade", lambda config, _, to=revision: upgrade(config, to))
            open_store(database).close()
        with engine.connect() as raw:
            assert raw.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == revision
    engine.dispose()
    with closing(open_store(database, create=False)) as store, store.read() as session:
        response = session.get_one(schema.Response, "r")
        assert (response.characters, response.grams, response.repeated, response.cut) == (15, 5, 1, True)
        assert session.get_one(schema.Rating, ("j", "r")).by_turn == []


def test_what_people_and_models_write_comes_back_as_it_was(address: str) -> None:
    odd = "NUL \0, a private mark \ue000, \ue0000, and both \ue000\0"
    replies = [{"text": f"{odd} \ud800", "token_ids": [], "finish": "stop"}]
    values = {"loss": math.nan, "norms": [math.inf, -math.inf, 1.5], "note": "NaN", "none": None}
    long = odd * 40
    with closing(open_store(address)) as store:
        with store.write() as session:
            insert_missing(session, schema.Prompt, [{**_PROMPT, "system": odd}])
            looks = {"characters": 0, "grams": 0, "repeated": 0, "cut": False, "sampling": {}}
            response = {"key": "r", "batch_key": "b", "model_key": "m", "prompt_key": "p", "replies": replies, **looks}
            insert_missing(session, schema.Response, [response])
            judge = {"key": "j", "name": long, "kind": "pointwise", "proxy": False, "identity": {"says": odd}}
            insert_missing(session, schema.Judge, [judge])
            said = {"judge_key": "j", "response_key": "r", "value": 1.0, "raw": odd, "reason": long, "by_turn": []}
            upsert(session, schema.Rating, [said])
            insert_missing(session, schema.Metric, [{"derivation_key": "d", "step": 1, "values": values}])
        with store.read() as session:
            assert session.get_one(schema.Prompt, "p").system == odd
            assert session.get_one(schema.Response, "r").replies == replies
            assert session.get_one(schema.Judge, "j").identity == {"says": odd}
            assert session.get_one(schema.Judge, "j").name == long
            rating = session.get_one(schema.Rating, ("j", "r"))
            assert (rating.raw, rating.reason) == (odd, long)
            assert repr(session.get_one(schema.Metric, ("d", 1)).values) == repr(values)


_PROMPT = {"key": "p", "turns": ["x"], "system": "", "reference": [], "checklist": []}


def test_moments_are_utc_whatever_the_zone_of_whoever_asks(database: str) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    engine = create_engine(database, isolation_level="AUTOCOMMIT")
    with engine.connect() as raw:
        raw.exec_driver_sql(f"ALTER DATABASE {engine.url.database} SET timezone TO 'Asia/Tokyo'")
    engine.dispose()
    with closing(open_store(database)) as store:
        with store.write() as session:
            insert_missing(session, schema.Protocol, [{"key": "p", "name": "", "settings": {}}])
            whole = {"protocol_key": "p", "arguments": {}, "recipe": {}, "environment": {}}
            session.add(schema.Run(started=noon.astimezone(timezone(timedelta(hours=5))), finished=None, **whole))
        with store.read() as session:
            started = session.scalars(select(schema.Run.started)).one()
    assert (started, started.utcoffset()) == (noon, timedelta(0))


def test_many_rows_come_as_the_driver_gives_them(address: str) -> None:
    with closing(open_store(address)) as store:
        with store.write() as session:
            insert_missing(session, schema.Prompt, [{**_PROMPT, "key": f"{i:04}"} for i in range(1200)])
        with store.read() as session:
            query = select(schema.Prompt.key, schema.Prompt.system).order_by(schema.Prompt.key)
            assert list(tuples(session, query, 500)) == [(f"{i:04}", "") for i in range(1200)]


WRITER = """
import sys
from contextlib import closing
from dadpo_bench.store import insert_missing, open_store, schema
from dadpo_bench.store.judgments import keep_judgments
from tests.store.test_postgres import _PROMPT
mine = sys.argv[2]
with closing(open_store(sys.argv[1])) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for part in range(20):
        keys = [f"{part}/{i}" for i in range(20)]
        with store.write() as session:
            insert_missing(session, schema.Prompt, [{**_PROMPT, "key": key} for key in keys])
            session.merge(schema.Judge(key="j", name="j", kind="pointwise", proxy=False, identity={}))
            looks = {"characters": 0, "grams": 0, "repeated": 0, "cut": False, "sampling": {}, "replies": []}
            responses = [{"key": k, "batch_key": "b", "model_key": "m", "prompt_key": k, **looks} for k in keys]
            insert_missing(session, schema.Response, responses)
            said = [{"judge_key": "j", "response_key": k, "value": float(mine), "by_turn": []} for k in keys]
            keep_judgments(session, schema.Rating, said)
"""


def test_two_processes_that_write_the_same_keys_double_nothing(database: str) -> None:
    """They make the store too, both at once."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, database, str(k)], cwd=Path(__file__).parents[2], env=environment(), **pipes
        )
        for k in (1, 2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.communicate("\n", timeout=60)
        assert process.returncode == 0
    with closing(open_store(database, create=False)) as store, store.read() as session:
        for table in (schema.Prompt, schema.Response, schema.Rating):
            assert session.scalars(select(func.count()).select_from(table)).one() == 400
        by_part: dict[str, set[float | None]] = {}
        for rating in session.scalars(select(schema.Rating)):
            by_part.setdefault(rating.response_key.partition("/")[0], set()).add(rating.value)
    assert {len(values) for values in by_part.values()} == {1}  # a batch is one writer's, whole


@pytest.fixture(scope="module")
def team(
    tiny_models: tuple[Path, Path], postgres: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """A database that two runs at once filled, and a file that one filled with the same recipe."""
    folder = tmp_path_factory.mktemp("team")
    write_recipe(tiny_models, folder)
    where = postgres.database()
    run = [sys.executable, "-m", "dadpo_bench", "run", "dadpo", "--recipe", "recipe.yaml", "--store"]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    stores = (where, where, "alone.sqlite3")
    processes = [subprocess.Popen([*run, s], cwd=folder, env=environment(), **pipes) for s in stores]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert (process.returncode, errors) == (0, "")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        yield where, folder / "alone.sqlite3"


def test_two_runs_at_once_end_with_what_one_run_gives_a_file(team: tuple[str, Path]) -> None:
    for table in RESULTS:
        assert rows(team[0], table) == rows(team[1], table), table
    boards = []
    for where in map(str, team):
        with closing(open_store(where)) as store:
            boards.append(render(store).split("\n")[3:])
    assert boards[0] == boards[1]


@pytest.mark.parametrize(
    "arguments",
    [
        "leaderboard --format json",
        "runs show 1",
        "diff 1 2",
        "comparisons --json",
        "report --out pages",
        "power --effect 3 --json",
        "export jsonl --out lines",
        "db upgrade",
    ],
)
def test_whatever_reads_a_store_reads_a_database(arguments: str, team: tuple[str, Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*arguments.split(), "--store", team[0]])
    assert result.exit_code == 0, (result.output, result.exception)


def test_a_database_is_checked_against_a_file(team: tuple[str, Path]) -> None:
    result = CliRunner().invoke(app, ["check", "--store", team[0], "--against", str(team[1])])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "no drop is proven" in result.stdout


def test_what_is_shown_of_a_living_database_follows_it(database: str, tmp_path: Path) -> None:
    source = member(tmp_path / "a.sqlite3")
    CliRunner().invoke(app, ["merge", source, "--into", database])
    with closing(open_store(database)) as store:
        shown = Now(store)
        with shown.site() as site:
            assert site.content("index.html")
        before = shown.stamp
        with store.write() as session:
            insert_missing(session, schema.Metric, [{"derivation_key": "d", "step": 1, "values": {}}])
        shown._due = 0.0
        with shown.site():
            assert shown.stamp != before


def test_a_url_without_a_driver_takes_the_one_that_the_extra_brings(database: str) -> None:
    with closing(open_store(database.replace("+psycopg", ""))) as store:
        assert store.engine.dialect.driver == "psycopg"
        assert "score" in " ".join(inspect(store.engine).get_table_names())


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(UserError, match="a SQLite file or a PostgreSQL database"):
        open_store("mysql+pymysql://me:secret@127.0.0.1/x")
