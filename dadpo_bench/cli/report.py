"""`dadpo-bench report`: a store as pages that anybody can open."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dadpo_bench.cli.options import STORE, JsonOption, StoreOption

_EXAMPLES = """
Write a store as pages: the boards with charts, every comparison with its texts, the judges, where it all came from.

The pages open from disk, in any browser, and ask nobody for anything: send the folder, or put it on any web server.
Whoever looks needs nothing installed. An earlier report in the same folder is replaced.

Examples:

  dadpo-bench report

  dadpo-bench report --store results/reference.sqlite3 --out build/report
"""


def report(
    store: StoreOption = STORE,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write; by default beside the store, as NAME-report.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """See `_EXAMPLES`, which typer shows."""
    from dadpo_bench.counts import counted
    from dadpo_bench.progress import aside
    from dadpo_bench.report import write_report
    from dadpo_bench.store import open_store

    reporter = aside(quiet=as_json)
    with closing(open_store(store, create=False)) as opened, reporter.running():
        written = write_report(opened, out or opened.board.with_name(f"{opened.board.stem}-report"), reporter)
    if as_json:
        typer.echo(json.dumps({**written._asdict(), "page": str(written.page)}, indent=1))
        return
    said = f"{counted(written.comparisons, 'comparisons')}, {written.size / 1e6:.1f} MB: open {written.page}"
    Console().print(said, markup=False, highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report", help=_EXAMPLES)(report)
