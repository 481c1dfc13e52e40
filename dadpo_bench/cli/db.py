"""`dadpo-bench db`: looking after a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dadpo_bench.cli.options import STORE, StoreOption, relative

group = typer.Typer(help="Look after a store: upgrade its schema, publish it.", no_args_is_help=True)


@group.command()
def upgrade(store: StoreOption = STORE) -> None:
    """Bring a store to this program's schema and scores; a copy is kept beside it. `run` does so by itself.

    A published store is written anew in its place, as nothing else writes it.

    Example: dadpo-bench db upgrade --store results/local.sqlite3
    """
    from dadpo_bench.scores import refresh_scores
    from dadpo_bench.store import upgrade as bring

    opened = bring(store, refresh_scores)
    typer.echo(f"{opened.name} is up to date")
    opened.close()


@group.command()
def publish(
    target: Annotated[Path, typer.Argument(help="File to write, e.g. results/reference.sqlite3.")],
    store: StoreOption = STORE,
) -> None:
    """Write a compact read-only copy of a store and its board (maintainers: the committed reference).

    Example: dadpo-bench db publish results/reference.sqlite3 --store build/reference.sqlite3
    """
    from dadpo_bench.leaderboard import write_board
    from dadpo_bench.scores import refresh_scores
    from dadpo_bench.store import open_store
    from dadpo_bench.store import publish as write

    opened = open_store(store, create=False)
    write(opened, target, refresh_scores)
    opened.close()
    published = open_store(str(target), create=False)
    board = write_board(published)
    typer.echo(f"wrote {relative(target)} ({target.stat().st_size / 1e6:.1f} MB) and {relative(board)}")
    published.close()


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="db")
