"""`dadpo-bench view`: the report of a living store, in the browser."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import Annotated

import typer
from rich.console import Console

from dadpo_bench.cli.options import STORE, StoreOption
from dadpo_bench.errors import UserError

_EXAMPLES = """
Serve the report of a store on this machine, as it is now: a page follows a run that goes on.

The same pages as `report`, with a full-text search over prompts, answers and the judge's words. The store is only read.

Examples:

  dadpo-bench view

  dadpo-bench view --store results/reference.sqlite3 --port 8080
"""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def view(
    store: StoreOption = STORE,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    remote: Annotated[
        bool,
        typer.Option("--remote", help="Allow a --host that other machines reach: anybody there may read all of it."),
    ] = False,
) -> None:
    """See `_EXAMPLES`, which typer shows."""
    if host not in _LOOPBACK and not remote:
        raise UserError(
            f"--host {host}: other machines may reach it, and there is no password; add --remote to mean it"
        )
    import socket

    import uvicorn

    from dadpo_bench.report.serving import app_of
    from dadpo_bench.store import open_store

    with closing(open_store(store, create=False)) as opened:
        listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise UserError(f"cannot listen on {host}:{port}: {error.strerror}; try --port 0") from error
        listening.listen()  # the address answers from the moment it is told
        shown = f"[{host}]" if ":" in host else host
        console = Console()
        console.print(
            f"{opened.name}: http://{shown}:{listening.getsockname()[1]}/ (Ctrl-C stops it)",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        app = app_of(opened, {"localhost", host, socket.gethostname().lower()})
        with suppress(KeyboardInterrupt):  # how one ends it
            uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("view", help=_EXAMPLES)(view)
