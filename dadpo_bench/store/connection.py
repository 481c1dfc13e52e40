"""Opening a store: SQLite in WAL mode by default, any SQLAlchemy URL for a team, published files read-only."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_random

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.places import COMMITTED_STORES
from dadpo_bench.store import schema
from dadpo_bench.store.columns import read_json, write_json

_BUSY_SECONDS = 120
_PUBLISHED = 0xDAD0
"""SQLite `application_id` of a published store."""


class Store:
    """The single source of truth. `read()` and `write()` give sessions; one `write()` is one transaction."""

    def __init__(self, engine: Engine, path: Path | None, *, published: bool) -> None:
        self.engine = engine
        self.path = path
        """File of a SQLite store; None for a server."""
        self.published = published
        self.artefacts = path.with_suffix("") if path else Path("results/team")
        """Where checkpoints of this store lie."""

    @property
    def name(self) -> str:
        """What to type after `--store`, without any password."""
        return str(self.path) if self.path else self.engine.url.render_as_string(hide_password=True)

    @property
    def board(self) -> Path:
        """The board this store writes: top-level `leaderboard.md` for a committed one, else beside the store."""
        if self.path is None:
            return Path("results/team.md")
        if self.is_committed:
            return self.path.resolve().parent.parent / "leaderboard.md"
        return self.path.with_suffix(".md")

    @property
    def is_committed(self) -> bool:
        """Whether this is one of a checkout's own stores, by its name and folder."""
        return self.path is not None and self.path.resolve().parts[-2:] in [path.parts for path in COMMITTED_STORES]

    @property
    def companions(self) -> list[Path]:
        """Of a committed store: all whose rows are on its board, itself among them. Of another: none."""
        if self.path is None or not self.is_committed:
            return []
        return [path for name in COMMITTED_STORES if (path := self.path.resolve().parent / name.name).is_file()]

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads, and sees the store as it was when it began."""
        engine = self.engine if self.path else self.engine.execution_options(isolation_level="REPEATABLE READ")
        with _plainly(self.name), Session(engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is the only one to write from its start, and commits at its end."""
        if self.published:
            why = "is a published store, or one without permission, and is never written"
            raise UserError(f"{self.name} {why}; choose another --store")
        with _plainly(self.name), self.engine.connect() as connection:
            writing = connection.execution_options(writing=True)
            with Session(writing) as session, session.begin():
                yield session

    def close(self) -> None:
        """Release the file."""
        self.engine.dispose()


@contextmanager
def _plainly(name: str) -> Iterator[None]:
    """Database errors as one line that says what is wrong with which store."""
    try:
        yield
    except (DatabaseError, sqlite3.DatabaseError) as error:
        reason = str(getattr(error, "orig", None) or error)
        if "malformed" in reason or "not a database" in reason:
            raise UserError(f"{name} is no usable SQLite store ({reason}); move it away and run again") from error
        if "readonly" in reason or "read-only" in reason:
            raise UserError(f"{name} cannot be written ({reason}); choose another --store") from error
        if "unable to open" in reason:
            raise UserError(f"{name} cannot be opened: its folder must exist and be writable") from error
        if "disk" in reason and "full" in reason:
            raise WorkError(f"no space left for {name}; free some and run the same command again") from error
        if isinstance(error, OperationalError | sqlite3.OperationalError):
            raise WorkError(f"{name}: {reason}") from error
        raise


def open_store(where: str, *, create: bool = True, upgrade: bool = True) -> Store:
    """Open a file path or SQLAlchemy URL, creating and migrating it where needed.

    Raises `UserError` for a store that is missing (unless `create`), corrupted, unwritable, or made by a
    newer version of this program. An older store is upgraded after a backup copy was made beside it; without
    `upgrade` it is refused.
    """
    path = store_file(where)
    if path is None:
        return _open_server(where, create=create, upgrade=upgrade)
    if not path.exists():
        if not create:
            raise UserError(f"no store at {path}; `dadpo-bench run` makes one")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make {path.parent}: {error.strerror}; choose another --store") from error
    if not create and not path.stat().st_size:  # opening it would make it a database
        raise UserError(f"{path} is empty; `dadpo-bench run` fills a store")
    with _plainly(str(path)):
        only_read = not create and not _writable(path)
        published = only_read or (path.exists() and _application_id(path) == _PUBLISHED)
        store = Store(_sqlite_engine(path, published=published), path, published=published)
        _migrate(store, create=create, upgrade=upgrade)
    return store


def _writable(path: Path) -> bool:
    """Whether SQLite may write beside it, as even a reader of its log has to. Raises `UserError` where the log tells
    more than the file."""
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return True
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise UserError(
            f"{path} cannot be read without permission to write beside it, for its latest rows lie in {log.name}: "
            "copy both, or have its owner run `dadpo-bench db publish`"
        )
    return False


def store_file(where: str) -> Path | None:
    """The file of a SQLite store, which need not be there; None for a server. Raises `UserError` where it cannot be."""
    if "://" in where and not where.startswith("sqlite"):
        return None
    if "://" in where and not where.startswith("sqlite:///"):
        raise UserError(f"--store {where}: write a SQLite store as a path or as sqlite:///PATH")
    path = Path(where.removeprefix("sqlite:///")).expanduser()
    if path.exists() and not path.is_file():
        what = "a directory" if path.is_dir() else "no ordinary file"
        raise UserError(f"{path} is {what}; --store takes a file")
    return path


def _open_server(url: str, *, create: bool, upgrade: bool) -> Store:
    kind = url.partition("://")[0]
    try:
        store = Store(_server_engine(url), None, published=False)
        _migrate(store, create=create, upgrade=upgrade)
    except ModuleNotFoundError as error:
        what = "'dadpo-bench[postgresql]'" if error.name == "psycopg" else error.name
        raise UserError(f"--store {kind}://…: its driver is missing: pip install {what}") from error
    except ArgumentError as error:
        raise UserError(f"--store {kind}://…: {error}") from error
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise UserError(f"--store {make_url(url).render_as_string(hide_password=True)}: {reason}") from error
    return store


def _server_engine(url: str) -> Engine:
    made = make_url(url)
    if made.get_backend_name() != "postgresql":
        raise UserError(f"--store {made.drivername}://…: a store is a SQLite file or a PostgreSQL database")
    if made.drivername == "postgresql":  # the driver of the extra, not SQLAlchemy's default
        made = made.set(drivername="postgresql+psycopg")
    engine = create_engine(made, json_serializer=write_json, json_deserializer=read_json)

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        # One writer at a time, as with SQLite: what is read before it is written cannot have changed meanwhile.
        if connection.get_execution_options().get("writing", False):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_PUBLISHED})")

    return engine


def _application_id(path: Path) -> int:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        return int(connection.execute("PRAGMA application_id").fetchone()[0])


@retry(
    retry=retry_if_exception_message(match="database is locked"),
    wait=wait_random(0.01, 0.1),
    stop=stop_after_delay(_BUSY_SECONDS),
    reraise=True,
)
def _use_wal(raw: sqlite3.Connection) -> None:
    """Beside another process that makes the same store, SQLite refuses this at once, whatever the time-out."""
    raw.execute("PRAGMA journal_mode=WAL")


def _sqlite_engine(path: Path, *, published: bool) -> Engine:
    # A WAL file opened read-only leaves -wal and -shm files behind: published stores are DELETE-mode, immutable.
    uri = path.resolve().as_uri() + ("?immutable=1" if published else "")

    def connect() -> sqlite3.Connection:
        # The pool gives a connection to one thread at a time, not always to the one that opened it.
        return sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_reset_on_return="rollback")

    @event.listens_for(engine, "connect")
    def _(raw: Any, _record: Any) -> None:
        raw.execute("PRAGMA foreign_keys=ON")
        if not published:
            _use_wal(raw)
            raw.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        # A deferred read-then-write upgrade fails at once with "database is locked", whatever the time-out.
        writing = connection.get_execution_options().get("writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _alembic(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", "dadpo_bench.store:migrations")
    config.attributes["connection"] = connection
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _migrate(store: Store, *, create: bool, upgrade: bool = True) -> None:
    """Bring the schema to this program's version; a published or newer store is refused instead."""
    scripts = ScriptDirectory.from_config(_alembic())
    with store.engine.connect() as connection:
        revision = _revision(connection)
        tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
    if (tables or revision is not None) and schema.Protocol.__tablename__ not in tables:
        raise UserError(f"{store.name} is another program's database; choose another --store")
    if not tables and not create:
        raise UserError(f"{store.name} is empty; `dadpo-bench run` fills a store")
    if revision == scripts.get_current_head():
        return
    known = {script.revision for script in scripts.walk_revisions()}
    if revision is not None and revision not in known:
        raise UserError(
            f"{store.name} was made by a newer dadpo-bench (schema {revision}); upgrade this program to read it"
        )
    if store.published or not (upgrade or revision is None):
        made = "published" if store.published else "made"
        raise UserError(
            f"{store.name} was {made} by an older dadpo-bench (schema {revision}); to read it: "
            f"dadpo-bench db upgrade --store {store.name}"
        )
    if revision is not None and store.path is not None:
        copy_database(store.path, store.path.with_suffix(f".backup-{revision}.sqlite3"))
    with store.engine.connect().execution_options(writing=True) as connection, connection.begin():
        # Somebody else may have migrated while this process waited for the lock: alembic looks again.
        command.upgrade(_alembic(connection), "head")


def upgrade(where: str, again: Callable[[Store], bool]) -> Store:
    """Open a store, a published one of an older version too: that is written anew. Raises as `open_store`.

    `again` does again what an older version computed, and says whether that changed anything.
    """
    path = store_file(where)
    if path is not None and path.is_file():
        with _plainly(where):
            published = _application_id(path) == _PUBLISHED
        if published:
            with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
                working = Path(folder) / path.name
                copy_database(path, working)
                with closing(sqlite3.connect(working)) as raw:
                    raw.execute("PRAGMA application_id=0")
                with closing(open_store(str(working))) as store:
                    if again(store) or not _is_current(path):
                        publish(store, path)
    store = open_store(where, create=False)
    if not store.published:
        again(store)
    return store


def _is_current(published: Path) -> bool:
    store = Store(_sqlite_engine(published, published=True), published, published=True)
    with closing(store), store.read() as session:
        return _revision(session.connection()) == ScriptDirectory.from_config(_alembic()).get_current_head()


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of a SQLite store, of what still lies in its `-wal` file too. Raises as `open_store`."""
    with (
        _plainly(str(source)),
        closing(sqlite3.connect(source)) as reader,
        closing(sqlite3.connect(target)) as writer,
    ):
        reader.backup(writer)


def publish(store: Store, target: Path, again: Callable[[Store], object] | None = None) -> None:
    """Write a compact, read-only copy of a SQLite store, as `results/reference.sqlite3` is committed.

    `again` does again in the copy what an older version computed; the store itself is only read.
    An earlier file in its place is replaced only by a finished one. Raises `UserError` where the target is the
    store itself or no file can be written there.
    """
    if store.path is None:
        raise UserError("only a SQLite store can be published")
    if target.is_dir() or (target.exists() and target.samefile(store.path)):
        raise UserError(f"{target} is {'a directory' if target.is_dir() else 'the store itself'}; name another file")
    scratch = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with _plainly(str(target)):
            with closing(sqlite3.connect(store.path)) as connection:
                connection.execute("VACUUM INTO ?", (str(scratch),))
            if again is not None:
                with closing(open_store(str(scratch), create=False)) as copy:
                    again(copy)
            with closing(sqlite3.connect(scratch)) as connection:
                connection.execute("PRAGMA journal_mode=DELETE")
                connection.execute(f"PRAGMA application_id={_PUBLISHED}")
            scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
