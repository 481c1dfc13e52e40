"""What tests of import and export share: calling the program, and all that a store holds."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from dadpo_bench.places import DEFAULT_STORE
from dadpo_bench.store import open_store

ORACLE = Path(__file__).parents[3] / "shared" / "oracle"

Rows = Sequence[dict[str, Any]]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


@cache
def _blank() -> bytes:
    """A store with nothing in it: making one takes longer than most of these tests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "blank.sqlite3"
        open_store(str(path)).close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes()


def done(*arguments: object) -> Any:
    """What `--json` prints."""
    store = Path(str(arguments[arguments.index("--store") + 1]) if "--store" in arguments else DEFAULT_STORE)
    if arguments[0] == "import" and not store.exists():
        store.parent.mkdir(parents=True, exist_ok=True)
        store.write_bytes(_blank())
    result = call(*arguments, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def board(store: object) -> list[dict[str, Any]]:
    result = call("leaderboard", "--store", store, "--format", "json")
    assert result.exit_code == 0, (result.output, result.exception)
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


def refused(*arguments: object) -> str:
    """The one line that a wrong command answers with; no traceback, exit code 2."""
    result = call(*arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    lines: list[str] = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def lines(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def listed(path: Path, rows: Rows) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def tables(store: object) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, but for when judges were asked."""
    found = {}
    with closing(sqlite3.connect(str(store))) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})") if row[1] != "asked"]
            quoted = ", ".join(f'"{column}"' for column in columns)
            found[name] = sorted(connection.execute(f"SELECT {quoted} FROM {name}").fetchall(), key=repr)
    return found


def exported(store: Path, format: str, folder: Path, *options: object) -> list[str]:
    """The files that an export writes."""
    written: list[str] = done("export", format, "--store", store, "--out", folder, *options)
    return written


def assert_round_trip(store: Path, format: str, folder: Path, *options: object) -> None:
    """What is exported and imported into a new store is what the first one holds."""
    again = folder / "again.sqlite3"
    done("import", format, *exported(store, format, folder / "out"), "--store", again, *options)
    first, second = tables(store), tables(again)
    assert first["answers"]
    for name, rows in first.items():
        assert second[name] == rows, name
