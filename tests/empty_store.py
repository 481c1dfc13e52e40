"""An empty store is made once a test process; further ones are its copies, which take no migrations."""

import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path

from dadpo_bench.store import Store, open_store


@cache
def _made() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.sqlite3"
        with closing(open_store(str(path))):
            pass
        return path.read_bytes()


def empty_store(path: Path) -> Store:
    """A new store at that path."""
    path.write_bytes(_made())
    return open_store(str(path))
