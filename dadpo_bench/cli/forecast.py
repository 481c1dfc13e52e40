"""What `plan` ends with: two tables, what to change, and everything that was assumed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dadpo_bench.cli.placement import (
    cluster_assumptions,
    cluster_line,
    hours_text,
    placement_data,
    placement_table,
)
from dadpo_bench.planning import FILLED, GPUS, ROOM, Ask, Forecast, Placement, Setting, Shapes
from dadpo_bench.tables import print_table

_HEADS = {
    "cache": "KV\ncache",
    "activations": "activa-\ntions",
    "optimiser": "opti-\nmiser",
    "gradients": "gradi-\nents",
}


def as_data(
    shapes: Shapes, setting: Setting, forecasts: Sequence[Forecast], placement: Placement | None
) -> dict[str, Any]:
    """Bytes, FLOPs and hours of every load, and on a cluster where it is."""
    return {
        "models": {role: shape._asdict() for role, shape in shapes._asdict().items() if shape},
        "hardware": setting.hardware._asdict(),
        "gpus": setting.gpus,
        "utilisation": setting.utilisation,
        "fits": all(f.fits for f in forecasts),
        "assumptions": list(_assumptions(setting, placement)),
        "stages": [
            {
                "stage": str(f.load.stage),
                "who": f.load.who,
                "model": None if isinstance(f.load, Ask) else f.load.model,
                "work": f.load.work,
                "tokens": f.load.tokens,
                "bytes": {**f.memory._asdict(), "total": f.memory.total},
                "flops": f.flops,
                "hours": f.hours,
                "fits": f.fits,
                "remedies": f.remedies,
            }
            for f in forecasts
        ],
        **({"placement": placement_data(placement)} if placement else {}),
    }


def show_plan(
    console: Console,
    name: str,
    shapes: Shapes,
    setting: Setting,
    forecasts: Sequence[Forecast],
    placement: Placement | None,
) -> None:
    """The tables and what is to be said of them."""
    hardware = setting.hardware

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    named = {role: shape for role, shape in shapes._asdict().items() if role != "parent"}
    models = [f"{role} {shape.parameters:,} parameters" if shape else f"{role} served" for role, shape in named.items()]
    say(f"{name}: {', '.join(models)}")
    machines = f"{placement.cluster.nodes} × {placement.cluster.gpus}" if placement else f"{setting.gpus}"
    say(
        f"{machines} × {hardware.name}: {hardware.memory / 1e9:.1f} GB, {hardware.flops / 1e12:,.1f} TFLOP/s, "
        f"{hardware.bandwidth / 1e9:,.0f} GB/s ({hardware.source})"
    )
    if placement:
        say(cluster_line(placement.cluster))
    print_table(console, _memory_table(forecasts))
    print_table(console, placement_table(placement) if placement else _work_table(forecasts))
    for forecast in forecasts:
        if not forecast.fits:
            what = f"{forecast.load.stage}, {forecast.load.who}: {forecast.memory.total / 1e9:.1f} GB do not fit"
            say(
                f"{what}; any of: {'; '.join(forecast.remedies)}"
                if forecast.remedies
                else f"{what}; no single setting helps"
            )
    if all(f.fits for f in forecasts):
        say("everything fits")
    for line in _assumptions(setting, placement):
        say(f"- {line}")


def _memory_table(forecasts: Sequence[Forecast]) -> Table:
    table = Table(title="memory of a device at its peak, GB", padding=(0, 0))
    table.add_column("stage")
    for name in (*forecasts[0].memory._fields, "total"):
        table.add_column(_HEADS.get(name, name), justify="right", no_wrap=True)
    table.add_column("fits", no_wrap=True)
    for (stage, memory, fits), same in itertools.groupby(forecasts, lambda f: (f.load.stage, f.memory, f.fits)):
        if memory.total:
            who = ", ".join(dict.fromkeys(f.load.who for f in same))
            cells = [f"{part / 1e9:.1f}" if part else "–" for part in (*memory, memory.total)]
            table.add_row(escape(f"{stage}: {who}"), *cells, "yes" if fits else "NO")
    return table


def _work_table(forecasts: Sequence[Forecast]) -> Table:
    table = Table(title="work", padding=(0, 1))
    table.add_column("stage")
    for name in ("tokens", "FLOPs", "hours"):
        table.add_column(name, justify="right", no_wrap=True)
    for f in forecasts:
        cells = ("–", "–") if isinstance(f.load, Ask) else (f"{f.flops:.1e}", hours_text(f.hours))
        table.add_row(escape(f"{f.load.stage}: {f.load.who}"), f"{f.load.tokens:,}", *cells)
    table.add_section()
    table.add_row("all", "", f"{sum(f.flops for f in forecasts):.1e}", hours_text(sum(f.hours for f in forecasts)))
    return table


def _assumptions(setting: Setting, placement: Placement | None) -> Iterator[str]:
    yield (
        f"hours: {100 * setting.utilisation:.0f} % of the device's FLOPs and bandwidth are reached (--utilisation); "
        "loading, downloading, and a judge or teacher elsewhere take their own time"
    )
    yield (
        "sampling: every new token of a batch reads the weights and the cache once, to the reply's limit; what "
        "transformers itself takes for a token is not in it, so the true time is longer"
    )
    yield f"tokens: prompts by their characters, replies at {100 * FILLED:.0f} % of their limit; memory: at their limit"
    yield f"fits: at most {100 * ROOM:.0f} % of the device's memory"
    if setting.hardware.name not in GPUS:
        yield (
            "on a CPU glibc keeps freed memory in pieces: a process's resident set was up to 41 % above these totals "
            "(benchmarks/planning.py --as-is)"
        )
    if setting.gpus > 1:
        yield (
            f"{setting.gpus} GPUs: training shares masters, gradients and moments out over them (FSDP), without time "
            "for communication; with adapters or rollouts each holds all of them and computes its share; sampling, "
            "scoring and pruning use one. A model of it that nobody has verified"
        )
    if placement:
        yield from cluster_assumptions(placement.cluster)
