"""`dadpo-bench run`: the whole bench, from teacher to board."""

from __future__ import annotations

import json
import os
import shlex
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from dadpo_bench import registry
from dadpo_bench.cli.options import (
    STORE,
    BackendOption,
    BudgetOption,
    ConcurrencyOption,
    DataOption,
    EngineOption,
    JsonOption,
    MaxCallsOption,
    StoreOption,
    TemplateOption,
    engine_changes,
    judge_changes,
)
from dadpo_bench.counts import counted
from dadpo_bench.errors import UserError
from dadpo_bench.recipe import DEFAULT as DEFAULT_RECIPE
from dadpo_bench.recipe import load_recipe
from dadpo_bench.stages import Stage

_EXAMPLES = """
Train the student, have it judged, put it on the board. Everything done is kept: run again to go on.

Examples:

  dadpo-bench run dadpo

  dadpo-bench run sft kd dpo dpo-matched dadpo --seeds 3

  dadpo-bench run dadpo --set methods.dadpo.beta_teacher=0.2 --dry-run

  dadpo-bench run dadpo --judge chat:gpt-4o          (needs OPENAI_API_KEY)

  dadpo-bench run dadpo --judge chat:gpt-4o --budget-usd 2 --dry-run

  dadpo-bench run dadpo --launch '--num_processes 8 --config_file fsdp2.yaml'

  dadpo-bench run dadpo --engine ray                 (all GPUs of this machine; ray://HOST:10001 for a cluster's)

  dadpo-bench run dadpo --recipe my-recipe.yaml --store results/mine.sqlite3

  dadpo-bench run dadpo --recipe my-recipe.yaml --data downloads
"""


def run(
    methods: Annotated[
        list[str],
        typer.Argument(metavar="METHOD...", help="Contestants of the recipe, or registered methods: dadpo, kd, …"),
    ],
    recipe: Annotated[str, typer.Option(help="A shipped recipe's name, or a YAML file.")] = DEFAULT_RECIPE,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe setting (dotted key)."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Training seeds a method.")] = 1,
    judge: Annotated[
        str | None,
        typer.Option(metavar="NAME[:ARG]", help="Judge other than the recipe's, e.g. chat:gpt-4o."),
    ] = None,
    backend: BackendOption = None,
    template: TemplateOption = None,
    orders: Annotated[
        Literal["both", "random"] | None,
        typer.Option(help="Orders in which a pairwise judge sees two responses; `random` costs half."),
    ] = None,
    data: DataOption = None,
    allow_contamination: Annotated[
        bool, typer.Option("--allow-contamination", help="Take held-out prompts that were trained on, or nearly so.")
    ] = False,
    concurrency: ConcurrencyOption = None,
    max_calls: MaxCallsOption = None,
    budget_usd: BudgetOption = None,
    until: Annotated[str, typer.Option(metavar="STAGE", help=f"Stop behind this stage: {', '.join(Stage)}.")] = "score",
    store: StoreOption = STORE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show stages, sizes and time; do nothing.")] = False,
    log_with: Annotated[
        str | None,
        typer.Option(metavar="TRACKER", help="Tell every training step to tensorboard, wandb, … too."),
    ] = None,
    launch: Annotated[
        str,
        typer.Option(metavar="OPTIONS", help="Train under accelerate launch with these, e.g. '--num_processes 8'."),
    ] = "",
    engine: EngineOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    as_json: JsonOption = False,
) -> None:
    """See `_EXAMPLES`, which typer shows."""
    changes = changes or []
    options = judge_changes(
        backend=backend, template=template, concurrency=concurrency, max_calls=max_calls, budget_usd=budget_usd
    )
    if orders is not None:
        options.append(f"orders={orders}")
    options += engine_changes(engine)
    if allow_contamination:
        options.append("prompts.allow_contamination=true")
    if until not in Stage.__members__.values():
        raise typer.BadParameter(registry.unknown("stage", until, [str(s) for s in Stage]))
    chosen = load_recipe(recipe, [*changes, *options], judge, methods)
    if data is not None:
        chosen = chosen.reading(data)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("start dadpo-bench once, as itself; --launch '--num_processes N' is for its trainings")
    # Imports torch: after every mistake that can be told without it.
    from dadpo_bench.cli.dry_run import show_estimate
    from dadpo_bench.cli.preview import show_questions
    from dadpo_bench.cli.result import show_result
    from dadpo_bench.engine import open_engine
    from dadpo_bench.history.commands import command_line
    from dadpo_bench.pipeline import judge_of
    from dadpo_bench.pipeline import run as run_stages
    from dadpo_bench.plan import make_plan, unfit
    from dadpo_bench.planning import estimate
    from dadpo_bench.progress import Reporter, aside
    from dadpo_bench.stages.bench import Bench
    from dadpo_bench.stages.teachers import check_key
    from dadpo_bench.store import open_store
    from dadpo_bench.tracking import check_tracker
    from dadpo_bench.worker import check_options

    if log_with is not None:
        check_tracker(log_with)
    processes = _options(launch)
    if processes:
        check_options(processes)
    looking = aside(quiet=quiet)
    with looking.running():
        plan = make_plan(chosen, methods, seeds, looking)
    chosen = plan.recipe
    console = Console()
    if dry_run:
        costs = estimate(plan, store)
        if as_json:
            typer.echo(json.dumps([cost._asdict() for cost in costs], indent=1))
        else:
            show_estimate(console, plan, costs)
            show_questions(console, plan)
        return
    judge_of(plan)  # a missing key is told before anything is made
    check_key(chosen.teacher)
    opened = open_store(store)
    # Absolute: who works elsewhere has another working directory.
    opened.artefacts = Path(chosen.engine.artefacts or opened.artefacts).expanduser().absolute()
    reporter = Reporter(Console(stderr=True) if as_json else console, quiet=quiet)
    arguments: dict[str, Any] = {
        "methods": methods,
        "recipe": recipe,
        "set": [*changes, *options],
        "seeds": seeds,
        "judge": chosen.judge,
    }
    given = {"data": data, "until": until if until != Stage.score else None, "launch": launch, "log_with": log_with}
    arguments |= {name: value for name, value in given.items() if value}
    if chosen.prompts.allow_contamination:
        reporter.say("held-out prompts were not held against the training prompts: contamination is allowed")
    for task in (*plan.learning.values(), *plan.tasks):
        if task.duplicates:
            reporter.say(f"{task.name}: {counted(task.duplicates, 'repeated prompts')} left out")
    with closing(open_engine(chosen.engine, processes)) as work, reporter.running():
        work.share(opened.artefacts)
        asked = run_stages(Bench(opened, work, reporter, log_with), plan, arguments, Stage(until))
    again = command_line(
        {**arguments, "methods": [name for name in chosen.methods if not unfit(chosen, name)], "seeds": max(3, seeds)},
        opened.name if store != STORE else "",
    )
    if Stage(until) is Stage.score:
        show_result(console, opened, plan.protocol_key, asked.name, again, as_json=as_json)
    elif as_json:
        typer.echo(json.dumps({"rows": [], "reference": [], "until": until}))
    opened.close()


def _options(launch: str) -> list[str]:
    try:
        return shlex.split(launch)
    except ValueError as error:
        raise UserError(f"--launch {launch}: {error}") from error


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run", help=_EXAMPLES)(run)
