"""`dadpo-bench judge-eval`: is a judge worth asking?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dadpo_bench.cli.options import (
    STORE,
    BackendOption,
    BudgetOption,
    ConcurrencyOption,
    EngineOption,
    JsonOption,
    MaxCallsOption,
    StoreOption,
    TemplateOption,
    engine_changes,
    judge_changes,
    relative,
)
from dadpo_bench.errors import UserError
from dadpo_bench.places import REFERENCE_STORE
from dadpo_bench.recipe import DEFAULT, load_recipe

if TYPE_CHECKING:
    from dadpo_bench.judging.canary_trial import CanaryReport
    from dadpo_bench.judging.comparisons import OpenJudge
    from dadpo_bench.registry import JudgeEntry
    from dadpo_bench.stages.bench import Bench
    from dadpo_bench.types import JudgeContext, Response

_EXAMPLES = """
Try a judge before trusting it: canaries that it must rank low, and pairs that people have labelled.

Without --pairs it compares canaries, and the teacher as a control, with dSFT: responses of the store's own run, or of
the committed reference. Everything asked is kept: the same command goes on, and boards made with the judge cite it.

Labelled pairs are read as they are published (.jsonl, .json, .parquet): JudgeBench, MT-Bench's human judgments,
AlpacaEval's annotations, or lines of our own: {"turns": ["…"], "first": ["…"], "second": ["…"], "label": "first"}
with label first, second or tie ("labels": [… of several annotators]).

Examples:

  dadpo-bench judge-eval pmi

  dadpo-bench judge-eval chat:gpt-4o --pairs judgebench.jsonl --retest 50

  dadpo-bench judge-eval chat:MODEL --set base_url=http://127.0.0.1:8000/v1 --pairs pairs.jsonl --against pmi

  dadpo-bench judge-eval chat:DIRECTORY --backend local --pairs pairs.jsonl --engine ray    (on all GPUs)
"""


def judge_eval(
    judge: Annotated[str, typer.Argument(metavar="JUDGE", help="NAME or NAME:ARGUMENT, e.g. pmi, chat:gpt-4o.")],
    pairs: Annotated[
        list[Path] | None, typer.Option(help="File of labelled pairs; may be given several times.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the judge.")
    ] = None,
    backend: BackendOption = None,
    template: TemplateOption = None,
    concurrency: ConcurrencyOption = None,
    max_calls: MaxCallsOption = None,
    budget_usd: BudgetOption = None,
    against: Annotated[
        str | None, typer.Option(metavar="JUDGE", help="Another judge, at its defaults, on the same pairs.")
    ] = None,
    retest: Annotated[
        int, typer.Option(min=0, help="Labelled pairs that are asked a second time, anew in each run.")
    ] = 0,
    responses: Annotated[
        str | None, typer.Option(metavar="STORE", help="Store whose run gave the canaries' and dSFT's responses.")
    ] = None,
    store: StoreOption = STORE,
    engine: EngineOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show two questions and the cost; ask nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    as_json: JsonOption = False,
) -> None:
    """See `_EXAMPLES`, which typer shows."""
    options = judge_changes(
        backend=backend, template=template, concurrency=concurrency, max_calls=max_calls, budget_usd=budget_usd
    )
    judging = (f"judge_settings.{change}" for change in changes or [])
    recipe = load_recipe(DEFAULT, [*judging, *options, *engine_changes(engine)], judge)
    if (against or retest) and not pairs:
        raise UserError("--against and --retest go with --pairs")
    from dadpo_bench.engine import open_engine
    from dadpo_bench.judging.canary_trial import (
        canary_answers,
        canary_data,
        canary_matches,
        keep_canaries,
        try_canaries,
    )
    from dadpo_bench.judging.comparisons import construct_judge, note_judge, voices
    from dadpo_bench.judging.evaluations import keep_evaluation
    from dadpo_bench.judging.labelled import read_pairs
    from dadpo_bench.judging.quality import measure
    from dadpo_bench.progress import Reporter
    from dadpo_bench.stages.bench import Bench
    from dadpo_bench.stages.teachers import judge_context
    from dadpo_bench.store import open_store

    labelled = [read_pairs(path) for path in pairs or []]
    context = judge_context(recipe.teacher)
    answered = None
    if not labelled:
        with closing(open_store(_source(responses, store), create=False)) as source:
            answered = canary_answers(source)
    if dry_run:
        pairs_of = [(p.first, p.second) for each in labelled for p in each.pairs]
        if answered:
            pairs_of = [(a.response, b.response) for one in canary_matches(answered).values() for a, b in one]
        asked_of = voices(judge, recipe.judge_settings) + (voices(against, {}) if against else [])
        _preview(asked_of, context, pairs_of, as_json=as_json)
        return
    ready = construct_judge(judge, recipe.judge_settings, context)
    other = construct_judge(against, {}, context) if against else None
    console = Console()
    reporter = Reporter(Console(stderr=True), quiet=quiet)
    found: dict[str, Any] = {"judge": judge}
    with (
        closing(open_engine(recipe.engine, [])) as work,
        closing(open_store(store)) as opened,
        reporter.running(),
    ):
        bench = Bench(opened, work, reporter)
        asked = note_judge(bench, judge, *ready)
        if answered:
            report = try_canaries(bench, asked, answered)
            keep_canaries(bench, asked, report)
            _cite(bench, asked)
            found["canaries"] = canary_data(report)
        else:
            second = note_judge(bench, against, *other) if against and other else None
            found["sets"] = []
            for each in labelled:
                values = measure(bench, asked, each, against=second, retest=retest)
                keep_evaluation(bench, asked, each.key, each.name, values)
                _cite(bench, asked)
                found["sets"].append(values)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    elif answered:
        _show_canaries(console, judge, report)
    for values in [] if as_json else found.get("sets", []):
        _show_set(console, judge, values)


def _cite(bench: Bench, judge: OpenJudge) -> None:
    """Have a board that the judge made cite what was found; any other stays as it is."""
    from dadpo_bench.leaderboard import write_board_of

    if board := write_board_of(bench.store, judge.key):
        bench.reporter.say(f"board: {relative(board)}")


def _preview(
    asked: Sequence[tuple[str, JudgeEntry, Any]],
    context: JudgeContext,
    pairs: Sequence[tuple[Response, Response]],
    *,
    as_json: bool,
) -> None:
    """What each judge would be asked about these pairs, and what that costs."""
    from dadpo_bench.cli.preview import preview
    from dadpo_bench.types import Comparison

    comparisons = [Comparison(contestant=first, baseline=second, order="ab") for first, second in pairs]
    few = comparisons[:: max(1, len(comparisons) // 100)]
    told, silent = [], []
    for name, entry, config in asked:
        rated = {(r.prompt.key, r.text) for pair in pairs for r in pair}
        count = 2 * len(pairs) if entry.kind == "pairwise" else len(rated)
        if previewed := preview(name, entry, config, context, comparisons, few, count):
            told.append(previewed)
        else:
            silent.append(name)
    if as_json:
        typer.echo(json.dumps([previewed._asdict() for previewed in told], indent=1))
        return
    for previewed in told:
        previewed.show(Console())
    for name in silent:
        typer.echo(f"{name} asks no model that is paid for: there is no question to show")


def _source(responses: str | None, store: str) -> str:
    """The store whose run is looked at: the one named, else the user's own where it has one, else the reference."""
    if responses:
        return responses
    from dadpo_bench.judging.canary_trial import has_canaries

    if has_canaries(store) or not REFERENCE_STORE.is_file():
        return store
    return str(REFERENCE_STORE)


def _show_canaries(console: Console, judge: str, report: CanaryReport) -> None:
    from dadpo_bench.judging.canary_trial import CONTROL

    table = Table(title=f"judge {judge}: against dSFT", padding=(0, 0))
    for name in ("contestant", "win rate", "95 % interval", "prompts", "unscored", "must", ""):
        table.add_column(name, justify="left" if name == "contestant" else "right")
    for canary in report.canaries:
        s = canary.summary
        rate = "–" if s.win_rate is None else f"{s.win_rate:.1f}"
        interval = "–" if s.ci_low is None or s.ci_high is None else f"{s.ci_low:.0f} to {s.ci_high:.0f}"
        must, done = ("win" if canary.name == CONTROL else "lose"), ("ok" if canary.passed else "NO")
        table.add_row(canary.name, rate, interval, str(s.prompts), str(s.unscored), must, done)
    console.print(table)
    lines = [
        f"flip rate: {_percent(report.flip_rate)} (a coin flips half its verdicts)",
        f"verdicts for the response shown first: {_percent(report.first_shown)} (fair: 50 %)",
        f"agrees with `longer`, the null judge: {_percent(report.like_longer)} of decided comparisons",
        f"unscored: {report.unscored}; in one of two orders: {report.half_scored}",
        *([f"members agree: {report.accord}"] if report.accord else []),
        "usable: every canary loses clearly" if report.usable else "NOT usable: a canary does not lose clearly",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False)


_LINES = {
    "agreement": "agrees with the labels",
    "agreement_without_ties": "… where neither says tie",
    "between_annotators": "annotators agree with each other",
    "between_annotators_without_ties": "… where neither says tie",
    "cohen_kappa": "Cohen's κ with the majority",
    "krippendorff_alpha": "Krippendorff's α, judge among annotators",
    "krippendorff_alpha_of_labels": "… of the annotators alone",
    "flip_rate": "flip rate",
    "first_shown": "verdicts for the response shown first (fair: 50 %)",
    "prefers_longer": "verdicts for the longer response",
    "labels_prefer_longer": "… labels",
    "prefers_list": "verdicts for the one with a list",
    "labels_prefer_list": "… labels",
    "like_longer": "agrees with `longer`, the null judge",
    "retest": "agrees with itself, asked again",
    "tokens_per_1000": "tokens of 1,000 judgments",
    "answer_tokens_per_1000": "… of the answers alone",
    "usd_per_1000": "USD of 1,000 judgments",
    "seconds_per_1000": "seconds of 1,000 judgments, one by one",
}
_COEFFICIENTS = {"cohen_kappa", "krippendorff_alpha", "krippendorff_alpha_of_labels"}


def _show_set(console: Console, judge: str, values: Mapping[str, Any]) -> None:
    title = (
        f"judge {judge}: {values['set']} ({values['format']}, {values['pairs']} pairs, {values['unscored']} unscored)"
    )
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, words in _LINES.items():
        if name in values:
            table.add_row(words, _cell(name, values[name]))
    if other := values.get("against"):
        table.add_section()
        table.add_row(f"agrees with judge {other['judge']}", _cell("agreement", other["agreement"]))
        table.add_row("… where neither says tie", _cell("agreement", other["agreement_without_ties"]))
        table.add_row("Cohen's κ with it", _cell("cohen_kappa", other["cohen_kappa"]))
        table.add_row("its agreement with the labels", _cell("agreement", other["its_agreement_with_labels"]))
    if members := values.get("members_agree"):
        table.add_section()
        table.add_row("Krippendorff's α of the members", _cell("krippendorff_alpha", members["krippendorff_alpha"]))
        for pair in members["pairs"]:
            table.add_row(escape(f"{pair['first']} and {pair['second']} agree"), _cell("share", pair["share"]))
    console.print(table)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return f"{value['share']:.1f} % ({value['low']:.1f} to {value['high']:.1f}) of {value['votes']}"
    if name in _COEFFICIENTS:
        return f"{value:.2f}"
    if name == "usd_per_1000":
        return f"{value:,.2f}"
    return f"{value:,.0f}" if name.endswith("_per_1000") else f"{value:.1f} %"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} %"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("judge-eval", help=_EXAMPLES)(judge_eval)
