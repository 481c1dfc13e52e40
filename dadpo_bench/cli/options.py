"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from dadpo_bench.errors import UserError
from dadpo_bench.places import DEFAULT_STORE

StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="DADPO_BENCH_STORE",
        help="SQLite file, or SQLAlchemy URL of a team's database.",
        show_default=True,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
STORE = str(DEFAULT_STORE)

DataOption = Annotated[
    str | None,
    typer.Option(metavar="DIR|FILE", help="Where the files of published tasks lie; left out: fetched once and kept."),
]
BackendOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Who answers a chat judge: see `list judges`; an endpoint by default."),
]
TemplateOption = Annotated[
    str | None,
    typer.Option(metavar="NAME|PATH", help="Judge prompt: see `list judges`; published ones by their own files."),
]
ConcurrencyOption = Annotated[
    int | None,
    typer.Option(min=1, help="Calls of a judge in flight at once, fewer while it is overrun; questions of one batch."),
]
MaxCallsOption = Annotated[int | None, typer.Option(min=0, help="Calls of a judge at most; the rest stays owed.")]
BudgetOption = Annotated[
    float | None, typer.Option(min=0, help="USD that a judge may cost at most; the rest stays owed.")
]

EngineOption = Annotated[
    str | None,
    # Named: typer 0.27 takes a metavar that is the option's own name for the option.
    typer.Option(
        "--engine", metavar="ENGINE", help="Where work runs: local, ray, HOST:PORT or ray://HOST:PORT of a cluster."
    ),
]


def judge_changes(**settings: Any) -> list[str]:
    """Options that stand for settings of the recipe's judge, as `--set` would give them."""
    return [f"judge_settings.{name}={value}" for name, value in settings.items() if value is not None]


def engine_changes(engine: str | None) -> list[str]:
    """What `--engine` stands for, as `--set` would give it. Raises `UserError` for what is no engine."""
    if engine is None:
        return []
    if engine in ("local", "ray"):
        return [f"engine.name={engine}"]
    if engine != "auto" and not re.fullmatch(r"(ray://)?[\w.\[\]:-]+:\d+", engine):
        raise UserError(f"--engine {engine}: choose local, ray, or a cluster's HOST:PORT or ray://HOST:PORT")
    return ["engine.name=ray", f"engine.address={engine}"]


def relative(path: Path) -> str:
    """A path as one would type it here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
