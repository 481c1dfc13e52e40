"""Charts as SVG, drawn by matplotlib when the report is built; colours are the page's, so they follow light and dark.

Names are other people's text: no mathematics is read from them, and what they hold is escaped. A chart carries its
numbers along, for the table behind it.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from dadpo_bench.leaderboard import number
from dadpo_bench.report.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Chart(NamedTuple):
    """A drawing and the same numbers as a table."""

    title: str
    svg: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


class Estimate(NamedTuple):
    """A figure with its interval, where it has one."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


class Shares(NamedTuple):
    """Per cent of prompts won, tied and lost."""

    name: str
    win: float
    tie: float
    loss: float


class Line(NamedTuple):
    """A curve."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    place: int
    """Among the curves: decides its colour and dashes."""
    measured_at_times: bool = False
    """Drawn as dots in the colour of the curve that it belongs to."""


# matplotlib knows no CSS: these stand for the page's colours, which take their places in the SVG.
_INK, _SOFT, _GRID = "#000001", "#000002", "#000003"
_WIN, _TIE, _LOSS = "#000004", "#000005", "#000006"
_ON_WIN, _ON_TIE = "#00000e", "#00000f"
_SERIES = tuple(f"#00001{i}" for i in range(8))
_VARIABLES = {
    _INK: "ink",
    _SOFT: "soft",
    _GRID: "rule",
    _WIN: "win",
    _TIE: "tie",
    _LOSS: "loss",
    _ON_WIN: "on-win",
    _ON_TIE: "on-tie",
    **{colour: f"series-{i}" for i, colour in enumerate(_SERIES)},
}
_DASHES = ("-", "--", ":", "-.")
_ROW, _HEAD, _WIDTH = 0.27, 0.75, 4.2
"""Inches."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlesize": 9,
    "axes.titlecolor": _INK,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _INK,
    "ytick.left": False,
    "xtick.bottom": False,
}


def forest(title: str, panels: Sequence[tuple[str, Sequence[Estimate]]], unit: str, even: float | None = None) -> Chart:
    """Estimates with intervals, a column for each panel, the same names in each; `even` is where nobody is better."""
    names = list(dict.fromkeys(e.name for _, estimates in panels for e in estimates))
    with _drawing(title, _WIDTH * len(panels), _HEAD + _ROW * len(names), len(panels)) as (figure, columns):
        for axes, (label, estimates) in zip(columns, panels, strict=True):
            axes.set_title(_short(visible(label), 48))
            axes.set_xlabel(unit)
            if even is not None:
                axes.axvline(even, color=_SOFT, linewidth=0.8, linestyle=":")
            for e in estimates:
                if e.value is None:
                    continue
                row = names.index(e.name)
                if e.low is not None and e.high is not None:
                    axes.plot([e.low, e.high], [row, row], color=_SERIES[0], linewidth=2, solid_capstyle="butt")
                axes.plot([e.value], [row], "o", color=_SERIES[0], markersize=5)
        _names(columns, names)
        svg = _svg(figure, title)
    digits = 1 if unit == "%" else 2
    rows = [
        [visible(name), *(_interval(next((e for e in given if e.name == name), None), digits) for _, given in panels)]
        for name in names
    ]
    return Chart(title, svg, ["", *(visible(label) for label, _ in panels)], rows)


def _interval(estimate: Estimate | None, digits: int) -> str:
    if estimate is None or estimate.value is None:
        return "–"
    shown = number(estimate.value, digits)
    if estimate.low is None or estimate.high is None:
        return shown
    return f"{shown} ({number(estimate.low, digits)} to {number(estimate.high, digits)})"


def shares(title: str, panels: Sequence[tuple[str, Sequence[Shares]]]) -> Chart:
    """Bars of wins, ties and losses, a column for each panel."""
    names = list(dict.fromkeys(s.name for _, given in panels for s in given))
    with _drawing(title, _WIDTH * len(panels), _HEAD + _ROW * len(names), len(panels)) as (figure, columns):
        for axes, (label, given) in zip(columns, panels, strict=True):
            axes.set_title(_short(visible(label), 48))
            axes.set_xlabel("% of prompts")
            axes.set_xlim(0, 100)
            for s in given:
                left = 0.0
                for part, colour, ink in ((s.win, _WIN, _ON_WIN), (s.tie, _TIE, _ON_TIE), (s.loss, _LOSS, _ON_WIN)):
                    axes.barh(names.index(s.name), part, left=left, color=colour, height=0.72, linewidth=0)
                    if part >= 12:
                        centre = left + part / 2
                        axes.text(centre, names.index(s.name), f"{part:.0f}", va="center", ha="center", color=ink)
                    left += part
        _names(columns, names)
        svg = _svg(figure, title)
    rows = [
        [visible(name)]
        + [
            " / ".join(number(part) for part in (found.win, found.tie, found.loss)) if found else "–"
            for _, given in panels
            for found in [next((s for s in given if s.name == name), None)]
        ]
        for name in names
    ]
    header = ["", *(f"{visible(label)}: win / tie / loss, %" for label, _ in panels)]
    return Chart(title, svg, header, rows, "win, tie and loss from left to right")


def pairs(
    title: str, panels: Sequence[tuple[str, Sequence[Estimate], Sequence[Estimate]]], before: str, now: str
) -> Chart:
    """Two estimates a name, joined: what changes from one reading to the other."""
    names = list(dict.fromkeys(e.name for _, first, _ in panels for e in first))
    with _drawing(title, _WIDTH * len(panels), _HEAD + _ROW * len(names), len(panels)) as (figure, columns):
        for axes, (label, first, second) in zip(columns, panels, strict=True):
            axes.set_title(_short(visible(label), 48))
            axes.set_xlabel("%")
            for one, other in zip(first, second, strict=True):
                row = names.index(one.name)
                if one.value is None or other.value is None:
                    continue
                axes.plot([one.value, other.value], [row, row], color=_SOFT, linewidth=1)
                axes.plot([one.value], [row], "o", color=_SERIES[0], markersize=5, markerfacecolor="none")
                axes.plot([other.value], [row], "D", color=_SERIES[1], markersize=4.5)
        _names(columns, names)
        svg = _svg(figure, title)
    rows = [
        [visible(name)]
        + [
            _interval(next((e for e in side if e.name == name), None), 1)
            for _, first, second in panels
            for side in (first, second)
        ]
        for name in names
    ]
    header = ["", *(f"{visible(label)}, {which}" for label, *_ in panels for which in (before, now))]
    return Chart(title, svg, header, rows, f"circle: {before}; diamond: {now}")


_HIGHEST = 1e30
"""What is drawn: matplotlib's axes end before floats do."""


def curves(title: str, unit: str, lines: Sequence[Line]) -> Chart:
    """Values by training step; numbers that are none are left out of the drawing."""
    with _drawing(title, 3.4, 2.2, 1) as (figure, (axes,)):
        axes.set_xlabel("step")
        axes.set_ylabel(unit)
        axes.grid(axis="y")
        axes.tick_params(axis="y", labelcolor=_SOFT)
        for line in lines:
            colour, dash = _SERIES[line.place % len(_SERIES)], _DASHES[line.place % len(_DASHES)]
            drawn = [value if abs(value) < _HIGHEST else math.nan for value in line.values]
            if line.measured_at_times:
                axes.plot(line.steps, drawn, "o", color=colour, markersize=3.5)
            else:
                axes.plot(line.steps, drawn, linewidth=1.2, color=colour, linestyle=dash, label=line.name)
        if len(lines) > 1:
            figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=7, labelcolor=_SOFT)
        svg = _svg(figure, title)
    dots = "dots: on validation prompts" if any(line.measured_at_times for line in lines) else ""
    values = [dict(zip(line.steps, line.values, strict=True)) for line in lines]
    rows = [
        [f"{step:g}", *(f"{given[step]:.4g}" if math.isfinite(given.get(step, math.nan)) else "–" for given in values)]
        for step in sorted({step for line in lines for step in line.steps})
    ]
    return Chart(title, svg, ["step", *(visible(line.name) for line in lines)], rows, dots)


@contextmanager
def _drawing(title: str, width: float, height: float, columns: int) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "svg.hashsalt": title}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        made = figure.subplots(1, columns, squeeze=False, sharey=columns > 1)
        yield figure, list(made[0])


def _names(columns: Sequence[Axes], names: Sequence[str]) -> None:
    columns[0].set_yticks(range(len(names)), [_short(visible(name)) for name in names])
    columns[0].set_ylim(len(names) - 0.5, -0.5)


def _short(name: str, most: int = 32) -> str:
    line = " ".join(name.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


_DECLARED = re.compile(r' style="([^"]*)"')
_COLOUR = re.compile(r"#0000(?:0[1-6ef]|1[0-7])\b")


def _svg(figure: Figure, title: str) -> str:
    """The figure as an element of a page whose Content-Security-Policy allows no inline style."""
    written = io.StringIO()
    with warnings.catch_warnings():  # of letters that matplotlib has no font for: the page has its own
        warnings.simplefilter("ignore")
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = written.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)  # a page has several figures, and ids once
    drawn = re.sub(r"<[^>]+>", lambda tag: _ours(tag[0]), drawn)  # names stand between tags and stay as they are
    label = f'<svg role="img" aria-label="{_plain(title)}"'
    return re.sub(r"\n\s*", "\n", drawn.replace("<svg", label, 1))


def _ours(tag: str) -> str:
    tag = _DECLARED.sub(lambda found: _attributes(found[1]), tag)
    return _COLOUR.sub(lambda found: f"var(--{_VARIABLES[found[0]]})", tag)


def _attributes(style: str) -> str:
    """Declarations as presentation attributes; of a font its size, the family is the page's."""
    found = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            size = re.search(r"([\d.]+)px", value)
            found.append(f'font-size="{size[1] if size else 9}"')
        elif name and "'" not in value:
            found.append(f'{name}="{value}"')
    return " " + " ".join(found) if found else ""


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in " ,.:-()%" else " " for c in text)
