"""The table that `run` ends with."""

import io
from contextlib import closing
from pathlib import Path

from rich.console import Console

from dadpo_bench.cli.result import _table
from dadpo_bench.leaderboard import sections
from dadpo_bench.store import open_store

REFERENCE = Path(__file__).parents[2] / "results/reference.sqlite3"


def test_it_fits_a_terminal_of_eighty_columns() -> None:
    written = io.StringIO()
    with closing(open_store(str(REFERENCE), create=False)) as store, store.read() as session:
        Console(width=80, file=written).print(_table(sections(session)[0], []))
    lines = written.getvalue().splitlines()
    assert "│1.86/2.03│" in "".join(lines)
    assert "…" not in written.getvalue()
    assert max(len(line.rstrip()) for line in lines) <= 80
