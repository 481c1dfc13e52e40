"""`dadpo-bench runs` and `diff`: what a store's runs were and did, and what tells two of them apart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dadpo_bench.cli.options import STORE, JsonOption, StoreOption
from dadpo_bench.cli.sparklines import BLOCKS, sparkline
from dadpo_bench.counts import counted, lasting
from dadpo_bench.tables import print_table, printable

if TYPE_CHECKING:
    from dadpo_bench.history.differences import Difference, ScoredTwice
    from dadpo_bench.history.runs import RunRecord
    from dadpo_bench.history.trainings import Curve, Training
    from dadpo_bench.store import Store

group = typer.Typer(invoke_without_command=True)

_CURVES = ("loss", "margin", "accuracy", "chosen_log_prob", "rejected_log_prob", "learning_rate", "tokens_per_second")
"""Those that are shown, and behind them the same of validation prompts; `--json` has all."""

_VALIDATION = "validation_"

RunArgument = Annotated[str, typer.Argument(metavar="ID", help="A run, as `dadpo-bench runs` names it.")]


@group.callback()
def runs(context: typer.Context, store: StoreOption = STORE, as_json: JsonOption = False) -> None:
    """The runs of a store, the latest one last: what was asked, how far it came, time and peak memory.

    `runs show ID` has all of one: its command, settings, environment, stages and training curves, and of one that
    goes on what it is at, how fast, and the time left.

    Examples:

      dadpo-bench runs

      dadpo-bench runs --store results/reference.sqlite3 --json

      dadpo-bench runs show 2 --store results/reference.sqlite3
    """
    if context.invoked_subcommand is not None:
        return
    from dadpo_bench.history.runs import runs_of
    from dadpo_bench.history.values import finite
    from dadpo_bench.store import open_store

    with closing(open_store(store, create=False)) as opened, opened.read() as session:
        found = runs_of(session)
    if as_json:
        typer.echo(json.dumps([finite(run.as_data()) for run in found], indent=1))
        return
    console = Console()
    if not found:
        _say(console, f"{opened.name} has no runs: `dadpo-bench run` makes them, `import` and `eval` do not")
        return
    print_table(console, _table(found))


@group.command("show")
def show(context: typer.Context, id: RunArgument, store: StoreOption = STORE, as_json: JsonOption = False) -> None:
    """All of one run: the command that repeats it, settings, environment, stages, and the curves of every training.

    A curve runs from its lowest to its highest value, its first and last one behind it.

    Examples:

      dadpo-bench runs show 2 --store results/reference.sqlite3

      dadpo-bench runs show 2 --json
    """
    from dadpo_bench.history.commands import command_of
    from dadpo_bench.history.runs import run_of
    from dadpo_bench.history.trainings import trainings_of
    from dadpo_bench.history.values import finite
    from dadpo_bench.store import open_store

    group_options = context.parent.params if context.parent else {}
    source = context.get_parameter_source("store")
    if source is None or source.name != "COMMANDLINE":  # `runs --store S show ID` is understood too
        store = group_options.get("store", store)
    with closing(open_store(store, create=False)) as opened, opened.read() as session:
        run = run_of(session, id, opened.name)
        trainings = trainings_of(session, run.protocol_key)
    command = command_of(run, "" if opened.published or store == STORE else opened.name)
    if as_json or group_options.get("as_json"):
        data = {
            **run.as_data(),
            "command": command,
            "stages": [stage._asdict() for stage in run.stages],
            "arguments": run.arguments,
            "settings": run.recipe,
            "environment": run.environment,
            "trainings": [training.as_data() for training in trainings],
        }
        typer.echo(json.dumps(finite(data), indent=1))
        return
    _show(Console(), run, command, trainings)


def diff(
    first: Annotated[str, typer.Argument(metavar="RUN", help="A run, as `dadpo-bench runs` names it.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="Another one; with --against, of that store.")],
    store: StoreOption = STORE,
    against: Annotated[str | None, typer.Option(metavar="STORE", help="Store of the second run.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What differs between two runs: in the recipe as it was resolved, arguments, environment and scores.

    Settings are named by dotted keys; what is the same is left out. Runs under one protocol end on one board of their
    store. `check` tells which scores are proven to be better or worse.

    Examples:

      dadpo-bench diff 1 2

      dadpo-bench diff 2 1 --store results/reference.sqlite3 --against results/methods.sqlite3

      dadpo-bench diff 1 2 --json
    """
    from dadpo_bench.history.differences import compared_scores, differences
    from dadpo_bench.history.runs import run_of
    from dadpo_bench.history.values import finite
    from dadpo_bench.store import open_store

    with ExitStack() as stack:
        opened = stack.enter_context(closing(open_store(store, create=False)))
        other = opened if against is None else stack.enter_context(closing(open_store(against, create=False)))
        with opened.read() as ours, other.read() as theirs:
            mine, another = run_of(ours, first, opened.name), run_of(theirs, second, other.name)
            shared = _same(opened, other) and mine.protocol_key == another.protocol_key
            scores = [] if shared else compared_scores(ours, mine, theirs, another)
    parts = {
        "recipe": differences(mine.recipe, another.recipe),
        "arguments": differences(mine.arguments, another.arguments),
        "environment": differences(mine.environment, another.environment),
    }
    if as_json:
        data = {
            "first": mine.as_data(),
            "second": another.as_data(),
            **{name: [d._asdict() for d in found] for name, found in parts.items()},
            "one_board": shared,
            "scores": [pair._asdict() for pair in scores],
        }
        typer.echo(json.dumps(finite(data), indent=1))
        return
    console = Console()
    names = [f"run {run.id}" for run in (mine, another)]
    if against is not None:
        names = [f"{name} of {place.name}" for name, place in zip(names, (opened, other), strict=True)]
    for name, run in zip(names, (mine, another), strict=True):
        _say(console, f"{name}: {_headline(run)}")
    for name, found in parts.items():
        _show_differences(console, name, found)
    console.print("\n[bold]scores[/bold]")
    if shared:
        _say(console, "  both runs ended on one board: its rows are the same for both")
    elif not scores:
        _say(console, "  neither run was scored")
    else:
        stores = [f"\nof {printable(Path(place.name).stem)}" if against else "" for place in (opened, other)]
        _show_scores(console, scores, f"run {mine.id}{stores[0]}", f"run {another.id}{stores[1]}")


def _same(opened: Store, other: Store) -> bool:
    """Whether both are one store, by whatever path."""
    if opened.path is None or other.path is None:
        return opened.name == other.name
    return opened.path.samefile(other.path)


def _say(console: Console, line: str) -> None:
    """A line of data: nothing in it is markup."""
    console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _table(found: Iterable[RunRecord]) -> Table:
    from dadpo_bench.history.runs import state_of

    now = datetime.now(UTC)
    table = Table(padding=(0, 0))
    table.add_column("run", justify="right", style="bold", no_wrap=True)
    table.add_column("started (UTC)", no_wrap=True)
    for name in ("recipe", "methods"):
        table.add_column(name)
    table.add_column("seeds", justify="right", no_wrap=True)
    for name in ("judge", "state"):
        table.add_column(name)
    for name in ("time", "peak memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in found:
        table.add_row(
            str(run.id),
            f"{run.started:%Y-%m-%d %H:%M}",
            escape(printable(run.name)),
            escape(printable(" ".join(run.methods))),
            "–" if run.seeds is None else str(run.seeds),
            escape(printable(run.judge)),
            escape(printable(str(state_of(run, now)))),
            lasting(run.seconds) if run.stages else "–",
            _memory(run.peak_bytes),
        )
    return table


def _memory(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e9:.1f} GB"


def _headline(run: RunRecord) -> str:
    from dadpo_bench.history.runs import state_of

    until = f" to {run.finished:%Y-%m-%d %H:%M}" if run.finished else ""
    state = printable(str(state_of(run, datetime.now(UTC))))
    return f"{printable(run.name)}, {state}, {run.started:%Y-%m-%d %H:%M}{until} UTC"


def _show(console: Console, run: RunRecord, command: str, trainings: Sequence[Training]) -> None:
    from dadpo_bench.history.runs import state_of

    _say(console, f"run {run.id}: {_headline(run)}")
    console.print("\n[bold]to repeat it[/bold]")
    _say(console, f"  {command or 'its arguments were not noted'}")
    _show_settings(console, "recipe", _that_matter(run))
    _show_settings(console, "environment", run.environment)
    if run.stages:
        console.print()
        table = Table("stage", padding=(0, 0))
        for name in ("time", "peak memory"):
            table.add_column(name, justify="right", no_wrap=True)
        for stage in run.stages:
            table.add_row(escape(printable(stage.stage)), lasting(stage.seconds), _memory(stage.peak_bytes))
        print_table(console, table)
    if run.activities:
        running = state_of(run, datetime.now(UTC)).running
        console.print("\n[bold]it is at[/bold]" if running else "\n[bold]it was at[/bold], as it last told")
        for activity in run.activities:
            _say(console, f"  {printable(activity.label)}: {activity.pace if running else activity.progress}")
    if not trainings:
        _say(console, "\nno trainings yet: contestants are entered when they have answered held-out prompts")
    for training in trainings:
        _show_training(console, training)


def _that_matter(run: RunRecord) -> dict[str, Any]:
    """The recipe without its description, and of its contestants those that the run trained."""
    from dadpo_bench.recipe import FIRST

    shown = {name: value for name, value in run.recipe.items() if name not in ("name", "summary", "methods")}
    methods = run.recipe.get("methods")
    for name, settings in methods.items() if isinstance(methods, dict) else ():
        if not run.methods or name in (FIRST, *run.methods):
            shown[f"methods.{name}"] = settings
    return shown


def _show_settings(console: Console, title: str, settings: Mapping[str, Any]) -> None:
    """A line for each part; none for what is at nothing."""
    from dadpo_bench.history.values import flat

    lines = {}
    for name, value in settings.items():
        parts = flat(value if isinstance(value, Mapping) else {"": value})
        said = [f"{printable(key)}: {_value(part)}" if key else _value(part) for key, part in parts.items()]
        if said:
            lines[printable(name)] = ", ".join(said)
    width = max(map(cell_len, lines), default=0)
    console.print(f"\n[bold]{title}[/bold]")
    for name, line in lines.items():
        _say(console, f"  {set_cell_size(name, width)}  {line}")


def _value(value: Any) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _show_training(console: Console, training: Training) -> None:
    steps = "" if training.steps is None else f"{counted(training.steps, 'steps')}, "
    tokens = "" if training.tokens is None else f"{counted(training.tokens, 'tokens')}, "
    seed = "" if training.seed is None else f", seed {training.seed}"
    _say(console, f"\n{printable(training.contestant)}{seed}: {steps}{tokens}{lasting(training.seconds)}")
    shown = [name for name in (*_CURVES, *(_VALIDATION + name for name in _CURVES)) if name in training.curves]
    drawn = _draws(console)
    lines = {name: sparkline(training.curves[name].values) if drawn else "" for name in shown}
    width, names = max(map(len, lines.values()), default=0), max(map(len, shown), default=0)
    for name, line in lines.items():
        _say(console, f"  {name.replace('_', ' '):<{names}}  {line:<{width}}  {_ends(training.curves[name], drawn)}")


def _draws(console: Console) -> bool:
    """Whether what the console writes to has block characters."""
    try:
        (BLOCKS + "→").encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _ends(curve: Curve, drawn: bool) -> str:
    first, last = (f"{value:.4g}" if math.isfinite(value) else "–" for value in (curve.values[0], curve.values[-1]))
    return f"{first} {'→' if drawn else 'to'} {last}"


def _show_differences(console: Console, name: str, found: Sequence[Difference]) -> None:
    console.print(f"\n[bold]{name}[/bold]")
    if not found:
        _say(console, "  the same")
    arrow = "→" if _draws(console) else "to"
    for one in found:
        first, second = ("not set" if value is None else _value(value) for value in (one.first, one.second))
        _say(console, f"  {printable(one.key)}: {first} {arrow} {second}")


def _show_scores(console: Console, scores: Sequence[ScoredTwice], first: str, second: str) -> None:
    table = Table(title="win rate, % with 95 % interval", padding=(0, 0))
    for name in ("contestant", "task", "judge"):
        table.add_column(name)
    for name in (first, second):
        table.add_column(escape(name), justify="right", no_wrap=True)
    for pair in scores:
        # Everybody meets the recipe's teacher; a canary meets dSFT.
        who = pair.contestant if pair.baseline in ("", "teacher") else f"{pair.contestant} against {pair.baseline}"
        rates = [_rate(pair.first), _rate(pair.second)]
        if rates != ["–", "–"]:  # the baseline's own row
            table.add_row(*(escape(printable(name)) for name in (who, pair.task, pair.judge)), *rates)
    print_table(console, table)
    unlike = {f"task {pair.task}: its prompts" for pair in scores if not pair.same_task}
    unlike |= {f"judge {pair.judge}: its settings" for pair in scores if not pair.same_judge}
    for what in sorted(unlike):
        _say(console, f"{printable(what)} are not the same in both, so like is not compared with like")


def _rate(row: Mapping[str, Any] | None) -> str:
    """A win rate with its interval, or a mean rating where nobody was met; an en dash where there is none."""
    from dadpo_bench.leaderboard import number

    if row is None:
        return "–"
    rate, low, high, score = (_figure(row.get(key)) for key in ("win_rate", "ci_low", "ci_high", "single_score"))
    if rate is None:
        return number(score, 2)
    return f"{number(rate)} ({number(low, 0)}–{number(high, 0)})"


def _figure(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="runs")
    app.command("diff")(diff)
