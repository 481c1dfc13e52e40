"""`dadpo-bench eval`: models as they are, ranked without training anything."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from dadpo_bench.recipe import DEFAULT, apply_change, load_recipe

if TYPE_CHECKING:
    from dadpo_bench.evaluation import Request
    from dadpo_bench.store import Store
    from dadpo_bench.types import JudgeContext

_EXAMPLES = """
Rank models on a task without training anything. Everything done is kept: run again to go on.

MODEL is a directory, a Hugging Face id or the embedded model's name; a contestant that was imported under the task,
which is judged as it is; or with --base-url a model behind any OpenAI-compatible endpoint (key: OPENAI_API_KEY).

Judges that compare need a baseline: the task's own, or --baseline. Replies are greedy, or drawn at the temperatures
that the task has for its categories (mt_bench), unless --temperature says otherwise. --max-calls and --budget-usd hold
for the judge and for each model behind the endpoint, apart.

Examples:

  dadpo-bench eval my-checkpoint --baseline smollm2-135m-instruct-q4_1 --task general --judge pmi --max-new-tokens 64

  dadpo-bench eval Qwen/Qwen2.5-1.5B-Instruct --task alpaca_eval_2 --data downloads --judge chat:gpt-4o --dry-run

  dadpo-bench eval my-model --base-url http://127.0.0.1:8000/v1 --task mt_bench --judge chat-score:gpt-4o

  dadpo-bench eval 7b 13b --baseline 70b --task general --judge chat:70b --backend local --engine ray    (on all GPUs)

  dadpo-bench eval claude-2 --task alpaca_eval_2 --judge chat:gpt-4o    (behind: import alpaca-eval-outputs FILE)
"""


def evaluate(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Directories, Hugging Face ids, endpoint's models, imports.")
    ],
    task: Annotated[str, typer.Option(metavar="TASK|FILE", help="See `list tasks`; or any data: a file, a hub id.")],
    judge: Annotated[str, typer.Option(metavar="NAME[:ARG]", help="See `list judges`, e.g. pmi, chat:gpt-4o.")],
    baseline: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Whom to compare with, named as MODEL; else the task's own.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible endpoint of MODELs that are no directories.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Variable that holds the endpoint's key, if not OPENAI_API_KEY.")
    ] = None,
    model_changes: Annotated[
        list[str] | None,
        typer.Option("--model-set", metavar="KEY=VALUE", help="A setting of the endpoint: `show judges endpoint`."),
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="Softmax temperature; 0 is greedy.")] = None,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="Nucleus sampling: probability mass kept.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Limit on new tokens a turn.")] = 1024,
    seed: Annotated[int | None, typer.Option(help="Of drawn replies; several seeds of a model share its row.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts that a model on disk answers together.")] = 24,
    data: DataOption = None,
    prompts: Annotated[int | None, typer.Option(min=1, help="Only the task's first so many prompts.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the judge.")
    ] = None,
    backend: BackendOption = None,
    template: TemplateOption = None,
    orders: Annotated[
        Literal["both", "random"],
        typer.Option(help="Orders in which a pairwise judge sees two responses; `random` costs half."),
    ] = "both",
    concurrency: ConcurrencyOption = None,
    max_calls: MaxCallsOption = None,
    budget_usd: BudgetOption = None,
    store: StoreOption = STORE,
    engine: EngineOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is owed, two questions, the cost.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    as_json: JsonOption = False,
) -> None:
    """See `_EXAMPLES`, which typer shows."""
    limits = {"concurrency": concurrency, "max_calls": max_calls, "budget_usd": budget_usd}
    judged = {name: limit for name, limit in limits.items() if base_url is None or _takes(judge, backend, name)}
    options = judge_changes(backend=backend, template=template, **judged)
    judging = (f"judge_settings.{change}" for change in changes or [])
    recipe = load_recipe(DEFAULT, [*judging, *options, *engine_changes(engine)], judge)
    endpoint = _endpoint(base_url, model_changes or [], api_key_env=api_key_env, **limits)
    if not top_p:
        raise typer.BadParameter("--top-p must be above 0")
    # Imports torch: after every mistake that can be told without it.
    from dadpo_bench.cli.result import show_ranking
    from dadpo_bench.engine import open_engine
    from dadpo_bench.evaluation import Request, make_evaluation
    from dadpo_bench.evaluation import evaluate as evaluated
    from dadpo_bench.judging.comparisons import check_judge, construct_judge
    from dadpo_bench.progress import Reporter
    from dadpo_bench.stages.bench import Bench
    from dadpo_bench.stages.teachers import judge_context
    from dadpo_bench.store import open_store
    from dadpo_bench.store.connection import store_file
    from dadpo_bench.types import Sampling

    request = Request(
        models,
        task,
        judge,
        recipe.judge_settings,
        orders=orders,
        baseline=baseline,
        data=data,
        prompts=prompts,
        sampling=Sampling(temperature=0, top_p=top_p, max_new_tokens=max_new_tokens, batch_size=batch_size),
        temperature=temperature,
        seed=seed,
        endpoint=endpoint,
    )
    context = judge_context(recipe.teacher)
    console = Console()
    if dry_run:
        _dry_run(console, request, context, store, as_json=as_json)
        return
    check_judge(judge, recipe.judge_settings)
    ready = construct_judge(judge, recipe.judge_settings, context)
    file = store_file(store)
    fresh = file is not None and not file.is_file()
    if fresh:  # a mistake leaves no store behind
        evaluation = make_evaluation(request, None)
    else:
        with closing(open_store(store)) as opened:
            evaluation = make_evaluation(request, opened)
    with closing(open_engine(recipe.engine, [])) as work, closing(open_store(store)) as opened:
        reporter = Reporter(Console(stderr=True) if as_json else console, quiet=quiet)
        with reporter.running():
            asked = evaluated(Bench(opened, work, reporter), evaluation, ready)
        show_ranking(console, opened, asked.protocol_key, asked.judge.key, as_json=as_json)


def _takes(judge: str, backend: str | None, setting: str) -> bool:
    """Whether a limit is the judge's too, where there is an endpoint that it is for in any case."""
    entry = registry.judges[judge.partition(":")[0]]
    values = {"backend": backend} if backend else {}
    return bool(entry.config) and setting in registry.config_class(entry, values).model_fields


_OPTIONS = {
    "model": "its name, MODEL",
    "max_tokens": "--max-new-tokens",
    "temperature": "--temperature (null sends none)",
    "top_p": "--top-p",
    "seed": "--seed",
}
"""What samples are drawn by is no matter of the endpoint."""


def _endpoint(base_url: str | None, changes: Sequence[str], **settings: Any) -> dict[str, Any] | None:
    """Settings of the endpoint that answers; None where there is none."""
    given = {"base_url": base_url, **settings}
    found = {name: value for name, value in given.items() if value is not None}
    for change in changes:
        apply_change(found, change, "--model-set")
    for name, option in _OPTIONS.items():
        if found.get(name) is not None:
            raise typer.BadParameter(f"--model-set {name}: give it by {option}")
    if base_url is None and (changes or settings["api_key_env"] is not None):
        raise typer.BadParameter("--model-set and --api-key-env go with --base-url")
    return found if base_url is not None else None


def _dry_run(console: Console, request: Request, context: JudgeContext, store: str, *, as_json: bool) -> None:
    """What is owed, what the judge would be asked, and what that costs; needs no key and asks nobody."""
    from dadpo_bench.cli.preview import previews
    from dadpo_bench.engine import LocalEngine
    from dadpo_bench.errors import UserError
    from dadpo_bench.evaluation import make_evaluation, owed
    from dadpo_bench.judging.comparisons import construct_judge
    from dadpo_bench.planning.workload import CHARACTERS, FILLED
    from dadpo_bench.progress import dry
    from dadpo_bench.stages.bench import Bench
    from dadpo_bench.stages.contenders import Model

    with _copy(store) as copied:
        evaluation = make_evaluation(request, copied, asking=False)
        try:
            ready = construct_judge(request.judge, request.judge_settings, context)
        except UserError:  # a judge without its key may be planned, not asked
            ready = None
        lines = owed(Bench(copied, LocalEngine(), dry()), evaluation, ready)
    task, entrants = evaluation.task, len(evaluation.entrants)
    for contender in evaluation.contenders:
        if isinstance(contender, Model) and contender.remote is not None:
            cost = contender.remote.answerer.estimate(task.prompts)
            lines.append(f"{contender.name}, if nothing is stored: {cost}")
    length = int(FILLED * CHARACTERS * request.sampling.max_new_tokens)
    counts = len(task.prompts) * entrants, len(task.prompts) * len(evaluation.contenders)
    judge = request.judge, request.judge_settings, request.orders
    shown = list(previews(*judge, context, task.prompts, length, *counts))
    if as_json:
        typer.echo(json.dumps({"owed": lines, "judges": [each._asdict() for each in shown]}, indent=1))
        return
    for line in lines or ["nothing is owed"]:
        console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
    for previewed in shown:
        previewed.show(console)


@contextmanager
def _copy(store: str) -> Iterator[Store]:
    """A store that may be written to: a SQLite store's content, nothing of any other's."""
    from dadpo_bench.store import open_store
    from dadpo_bench.store.connection import copy_database, store_file

    source = store_file(store)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.sqlite3"
        if source is not None and source.is_file():
            copy_database(source, copy)
        with closing(open_store(str(copy))) as opened:
            yield opened


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("eval", help=_EXAMPLES)(evaluate)
