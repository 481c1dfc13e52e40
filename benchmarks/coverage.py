"""How often an interval that claims 95 % holds the truth, on boards whose truth is known.

A section is a function from (boards, seed) to rows, registered under its name; a row is one interval method on one kind
of board, its coverage counted over boards and contestants.

usage: python benchmarks/coverage.py [--section length-control …] [--boards 250] [--seed 0] [--json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dadpo_bench import scoring
from dadpo_bench.scoring.length_control import interval, refits
from dadpo_bench.scoring.outcomes import Floats


class Row(NamedTuple):
    """Per cent and points."""

    board: str
    interval: str
    coverage: float
    error: float
    """Of the coverage: the deviation over boards of a board's share of intervals that hold, over the root of boards."""
    worst: float
    """Coverage of the contestant that fares worst."""
    bias: float
    """Mean of estimate − truth."""
    width: float


Section = Callable[[int, int], list[Row]]
SECTIONS: dict[str, Section] = {}


def section(name: str) -> Callable[[Section], Section]:
    """Registers a section."""

    def register(function: Section) -> Section:
        SECTIONS[name] = function
        return function

    return register


def row(board: str, interval: str, truth: Floats, estimates: Floats, low: Floats, high: Floats) -> Row:
    """(contestants,) truth and (boards, contestants) estimates and bounds, all in per cent."""
    holds = (low <= truth) & (truth <= high)
    by_board = 100 * holds.mean(1)
    error = float(by_board.std(ddof=1) / np.sqrt(len(by_board)))
    worst, bias = 100 * float(holds.mean(0).min()), float((estimates - truth).mean())
    return Row(board, interval, float(by_board.mean()), error, worst, bias, float((high - low).mean()))


@dataclass(frozen=True)
class LengthBiasedBoard:
    """Contestants judged in both orders, P = σ(length·tanh(Δ/σ) + b_m·difficulty + c_m + noise).

    Prompts are drawn anew for every board: the truth is that of their population.
    """

    contestants: int = 6
    prompts: int = 100
    levels: tuple[float, float] = (-2.25, 1.25)
    """c of the first and of the last contestant, logits."""
    length: float = -1.0
    """Negative: the judge likes length."""
    difficulty: float = 1.0
    """Deviation over prompts, logits."""
    slopes: tuple[float, float] = (1.0, 1.0)
    """b of the first and of the last contestant."""
    confounded: float = 0.0
    """Correlation of a prompt's difficulty with the gap."""
    noise: float = 0.0
    """Deviation over cells, logits: what makes both orders agree."""
    seeds: int = 1
    """Training seeds; lengths over them deviate by half as much as over prompts."""
    uneven: float = 0.0
    """Deviation of a contestant over its training seeds, logits."""

    def quality(self) -> tuple[Floats, Floats, Floats]:
        """b, c and mean gap in deviations, of every contestant: the better ones are longer."""
        place = np.linspace(0, 1, self.contestants)
        return (
            np.linspace(*self.slopes, self.contestants),
            np.linspace(*self.levels, self.contestants),
            0.6 - 1.2 * place,
        )

    def truth(self) -> Floats:
        """(contestants,) population win rates at equal length, per cent, by Gauss–Hermite quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        slope, level, _ = self.quality()
        spread = np.sqrt((slope * self.difficulty) ** 2 + self.noise**2 + self.uneven**2)
        logits = level[:, None] + spread[:, None] * nodes
        return 100 * (weights / weights.sum() / (1 + np.exp(-logits))).sum(1)

    def draw(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """(contestants, seeds, prompts, 2) outcomes and (contestants, seeds, prompts) gaps in characters."""
        shape = (self.contestants, self.seeds, self.prompts)
        slope, level, gap = (part[:, None, None] for part in self.quality())
        difficulty = rng.normal(size=self.prompts)
        alone = rng.normal(size=(self.contestants, 1, self.prompts))
        gaps = gap + self.confounded * difficulty + np.sqrt(1 - self.confounded**2) * alone
        if self.seeds > 1:
            gaps = gaps + rng.normal(0, 0.5, shape)
            level = level + rng.normal(0, self.uneven, (*shape[:2], 1))
        logits = self.length * np.tanh(gaps) + self.difficulty * slope * difficulty + level
        p = 1 / (1 + np.exp(-(logits + self.noise * rng.normal(size=shape))))
        return (rng.random((*shape, 2)) < p[..., None]).astype(float), np.round(400 * gaps)


BOARDS = {
    "6 × 100": LengthBiasedBoard(),
    "6 × 100, no length effect": LengthBiasedBoard(length=0),
    "6 × 100, orders agree": LengthBiasedBoard(noise=2),
    "6 × 100, slopes 0.3 to 1.5": LengthBiasedBoard(slopes=(0.3, 1.5)),
    "6 × 100, gap ~ difficulty 0.5": LengthBiasedBoard(confounded=0.5),
    "6 × 100, few losses or wins": LengthBiasedBoard(levels=(-5, 5)),
    "4 × 100": LengthBiasedBoard(contestants=4),
    "3 × 100, no difficulty fitted": LengthBiasedBoard(contestants=3),
    "3 × 100, gap ~ difficulty 0.5": LengthBiasedBoard(contestants=3, confounded=0.5),
    "6 × 40": LengthBiasedBoard(prompts=40),
    "6 × 400": LengthBiasedBoard(prompts=400),
    "6 × 150, 3 seeds ± 8 points": LengthBiasedBoard(prompts=150, seeds=3, uneven=0.35),
    "6 × 150, 10 seeds ± 8 points": LengthBiasedBoard(prompts=150, seeds=10, uneven=0.35),
}


@section("length-control")
def length_control(boards: int, seed: int, *, draws: int = 200) -> list[Row]:
    """Intervals from refits, and the raw win rate's, which answers another question."""
    rows = []
    for name, board in BOARDS.items():
        rng = np.random.default_rng(seed)
        seen: dict[str, list[Floats]] = {}
        for number in track(range(boards), name, console=Console(stderr=True), transient=True):
            outcomes, gaps = board.draw(rng)
            counts = scoring.bootstrap_counts(board.prompts, draws, seed + number)
            scored = outcomes.mean(-1)
            fits = refits(scored, gaps, counts, seed=seed + number)
            raw, estimates = scored.mean((1, 2)), fits.win_rates
            resampled = np.stack(scoring.all_bootstrap_means(list(scored), counts, seed + number), 1)
            for method, centre, bounds in (
                ("LC", estimates, interval(fits)[1:]),
                ("LC, percentiles of refits", estimates, np.percentile(fits.draws, [2.5, 97.5], axis=0)),
                ("raw win rate", raw, np.percentile(resampled, [2.5, 97.5], axis=0)),
            ):
                seen.setdefault(method, []).append(100 * np.stack([centre, *bounds]))
        for method, found in seen.items():
            rows.append(row(name, method, board.truth(), *np.stack(found, 1)))
    return rows


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", action="append", choices=list(SECTIONS), help="only this; may be repeated")
    parser.add_argument("--boards", type=int, default=250, help="simulated boards of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {name: SECTIONS[name](options.boards, options.seed) for name in options.section or SECTIONS}
    if options.json:
        print(json.dumps({name: [r._asdict() for r in rows] for name, rows in found.items()}))
        return
    for name, rows in found.items():
        heads = ("board", "interval", "coverage, %", "±", "worst row", "bias", "width")
        table = Table(*heads, title=f"{name}: {options.boards} boards of each kind, nominal 95 %")
        for r in rows:
            table.add_row(r.board, r.interval, *(f"{x:.1f}" for x in r[2:5]), f"{r.bias:+.2f}", f"{r.width:.1f}")
        Console().print(table)


if __name__ == "__main__":
    main()
