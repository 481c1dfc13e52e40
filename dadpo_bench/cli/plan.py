"""`dadpo-bench plan`: what a recipe takes of a machine, before anything is downloaded or rented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dadpo_bench.cli.options import JsonOption
from dadpo_bench.errors import UserError
from dadpo_bench.gpus import GPUS, check_gpu
from dadpo_bench.recipe import load_recipe

_EXAMPLES = """
Plan a recipe: parameters, memory, FLOPs and hours of every stage, whether it fits, and what to change if not.

No weights are loaded (the embedded teacher is converted once). Sizes come from each model's config.json: of a local
directory, of a file named by --config, else fetched from the hub.

Examples:

  dadpo-bench plan smollm2-135m-pruned20

  dadpo-bench plan vicuna-7b-pruned20 --gpu h100-80gb --gpus 4

  dadpo-bench plan vicuna-7b-pruned20 --gpu h100-80gb --gpus 8 --nodes 4 --set engine.gpus_per_training=8

  dadpo-bench plan vicuna-7b-pruned20 --gpu a100-80gb --config teacher=examples/configs/vicuna-7b-v1.5.json

  dadpo-bench plan mine.yaml --gpu l40s-48gb --set methods.kd.micro_batch_tokens=512 --json
"""


def plan(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, or a YAML file.")],
    gpus: Annotated[
        int, typer.Option(min=1, help="GPUs that training is shared out over; with --nodes, of each machine.")
    ] = 1,
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Machines with GPUs under Ray (`run --engine`): where each stage runs, for how long, and how many "
            "GPUs are idle. Workers and trainings take what the recipe's engine says. Not for CPUs.",
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(GPUS)}; left out (or cpu): this machine.",
        ),
    ] = None,
    utilisation: Annotated[
        float,
        typer.Option(min=0.01, max=1, help="Share of the device's FLOPs and bandwidth that is assumed to be reached."),
    ] = 0.4,
    configs: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="ROLE=PATH", help="config.json (or its folder) of teacher or student."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe setting (dotted key)."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Training seeds a method.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """See `_EXAMPLES`, which typer shows."""
    check_gpu(gpu)
    given = dict(map(_config, configs or []))
    chosen = load_recipe(recipe, changes or [])
    # Imports torch: after every mistake that can be told without it.
    from dadpo_bench.cli.forecast import as_data, show_plan
    from dadpo_bench.models.precision import device
    from dadpo_bench.plan import make_plan
    from dadpo_bench.planning import Setting, cluster_of, forecast_of, hardware_of, loads, place, shapes_of, steps

    if nodes and gpu not in GPUS and device().type != "cuda":
        raise UserError(f"--nodes plans machines with GPUs: name theirs, e.g. --gpu {next(iter(GPUS))}")
    cluster = cluster_of(chosen.engine, nodes, gpus) if nodes else None
    made = make_plan(chosen, list(chosen.methods), seeds)
    setting = Setting(hardware_of(gpu), gpus, utilisation)
    if cluster:
        setting = setting._replace(
            gpus=cluster.gpus_per_training,
            widening="engine.gpus_per_training={}",
            most_gpus=cluster.all_gpus,
        )
    shapes = shapes_of(chosen, given)
    forecasts = [forecast_of(load, shapes, setting) for load in loads(made)]
    placement = place(steps(made), cluster, shapes, setting) if cluster else None
    if as_json:
        typer.echo(json.dumps(as_data(shapes, setting, forecasts, placement), indent=1))
    else:
        show_plan(Console(), chosen.name, shapes, setting, forecasts, placement)


def _config(text: str) -> tuple[str, Path]:
    role, _, name = text.partition("=")
    path = Path(name).expanduser()
    path = path / "config.json" if path.is_dir() else path
    if role not in ("teacher", "student") or not name:
        raise UserError(f"--config {text}: write it as teacher=PATH or student=PATH")
    if not path.is_file():
        raise UserError(f"--config {text}: no file {path}")
    return role, path


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan", help=_EXAMPLES)(plan)
