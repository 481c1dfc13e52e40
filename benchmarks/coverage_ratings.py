"""How often nominal 95 per cent intervals hold the truth, and whether promised power is there: by simulation.

The truth is an expectation over prompts (and seeds), known exactly or by a million draws. Every row draws its boards
anew, with a seed of its own; a coverage of 1,000 boards is known to ± 1.4 points.

usage: python benchmarks/coverage_ratings.py [--boards 1000] [--draws 1000] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dadpo_bench import scoring
from dadpo_bench.scoring import corrected
from dadpo_bench.scoring.bradley_terry import SCALE

Bounds = tuple[float, float] | None
Trial = Callable[[Generator], tuple[float, Bounds]]
"""One simulated board: the truth and the interval."""


class Row(NamedTuple):
    """What is simulated, what it should give, and one trial of it."""

    name: str
    setting: str
    nominal: float
    trial: Trial


def logistic(values: np.ndarray) -> np.ndarray:
    """σ, elementwise."""
    return 1 / (1 + np.exp(-values))


def win_rate(rate: float, prompts: int, draws: int) -> Trial:
    """Outcomes of two orders that agree four times of five."""

    def trial(rng: Generator) -> tuple[float, Bounds]:
        first = rng.random(prompts) < rate
        second = np.where(rng.random(prompts) < 0.8, first, rng.random(prompts) < rate)
        outcomes = (first + second.astype(float)) / 2
        return 100 * rate, scoring.interval(outcomes[None], scoring.bootstrap_counts(prompts, draws, 0), 0)

    return trial


def crossed(prompts: int, draws: int, *, over_seeds: bool) -> Trial:
    """Three training seeds that deviate by 4 points; prompts share a part of their difficulty over seeds."""

    def trial(rng: Generator) -> tuple[float, Bounds]:
        rates = 0.5 + rng.normal(0, 0.04, (3, 1))
        chances = np.clip(rates + rng.normal(0, 0.25, prompts), 0, 1)
        outcomes = (rng.random((3, prompts)) < chances).astype(float)
        shown = outcomes if over_seeds else outcomes.mean(0)[None]
        return 50, scoring.interval(shown, scoring.bootstrap_counts(prompts, draws, 0), 0)

    return trial


def paired(prompts: int, draws: int) -> Trial:
    """Two methods on prompts that are hard for both; the first is 5 points better."""

    def trial(rng: Generator) -> tuple[float, Bounds]:
        chances = rng.uniform(0.1, 0.85, prompts)
        sides = [(rng.random((1, prompts)) < chances + gain).astype(float) for gain in (0.05, 0.0)]
        found = scoring.paired_difference(*sides, scoring.bootstrap_counts(prompts, draws, 0), seed=0)
        return 5, None if found is None else (found.low, found.high)

    return trial


def rating(prompts: int, draws: int, theta: float, *, star: bool) -> Trial:
    """The last of four contestants, with ties; the others lie at 0, 0.5 and −0.5 logits."""
    logits = np.array([0.0, 0.5, -0.5, theta])
    pairs = np.array([(m, 0) for m in (1, 2, 3)] if star else [(i, j) for i in range(4) for j in range(i)])
    chances = logistic(logits[pairs[:, 0]] - logits[pairs[:, 1]])[:, None]

    def trial(rng: Generator) -> tuple[float, Bounds]:
        outcomes = (rng.random((len(pairs), prompts)) < chances).astype(float)
        # A fifth are judged twice, which makes ties and leaves the mean.
        again = (rng.random(outcomes.shape) < chances).astype(float)
        outcomes = np.where(rng.random(outcomes.shape) < 0.2, (outcomes + again) / 2, outcomes)
        found = scoring.bradley_terry_ratings(pairs, outcomes, scoring.bootstrap_counts(prompts, draws, 0), seed=0)[3]
        return 1000 + SCALE * theta, (found.low, found.high)

    return trial


def equal_style(prompts: int, draws: int) -> Trial:
    """One of two contestants writes half as much again, to a judge who likes length."""
    pairs = np.array([(1, 0), (2, 0)])

    def vectors(rng: Generator, rows: int) -> np.ndarray:
        found = np.concatenate([rng.lognormal(5, 0.4, (3, rows, 1)), rng.poisson(3, (3, rows, 3))], -1)
        found[1, :, 0] *= 1.5
        return found

    population = vectors(np.random.default_rng(0), 200_000)
    spread = scoring.style_differences(population[1:], population[:1])[..., 0].std()

    def trial(rng: Generator) -> tuple[float, Bounds]:
        drawn = vectors(rng, prompts)
        differences = scoring.style_differences(drawn[1:], drawn[:1])
        chances = logistic(np.array([[-0.3], [0.4]]) + differences[..., 0] / spread)
        outcomes = (rng.random(chances.shape) < chances).astype(float)
        counts = scoring.bootstrap_counts(prompts, draws, 0)
        found = scoring.style_ratings(pairs, outcomes, differences, counts, counter="simulated", seed=0).ratings[1]
        return 1000 - 0.3 * SCALE, (found.low, found.high)

    return trial


def judged(rate: float, accuracy: float, leaning: float, labelled: int) -> Trial:
    """800 prompts, a tenth ties; where the judge errs it says "win" with probability `leaning`."""

    def trial(rng: Generator) -> tuple[float, Bounds]:
        truth = np.where(rng.random(800) < 0.1, 0.5, rng.random(800) < rate).astype(float)
        judge = np.where(rng.random(800) < accuracy, truth, rng.random(800) < leaning).astype(float)
        labels = np.full(800, np.nan)
        chosen = rng.permutation(800)[:labelled]
        labels[chosen] = truth[chosen]
        found = scoring.corrected_win_rate(judge, labels)
        return 100 * (0.9 * rate + 0.05), (found.low, found.high)

    return trial


def judged_seeds(seeds: int, labelled: int, *, everywhere: bool) -> Trial:
    """300 prompts, seeds that deviate by 8 points; a fifth is judged won whatever it is. Labels of one seed or all."""

    def trial(rng: Generator) -> tuple[float, Bounds]:
        truth = (rng.random((seeds, 300)) < 0.5 + rng.normal(0, 0.08, (seeds, 1))).astype(float)
        judge = np.where(rng.random(truth.shape) < 0.2, 1.0, truth)
        labels = np.full(truth.shape, np.nan)
        chosen = rng.permutation(300)[:labelled]
        of = rng.integers(0, seeds, labelled) if everywhere else 0
        labels[of, chosen] = truth[of, chosen]
        found = scoring.corrected_win_rate(judge, labels)
        return 50, (found.low, found.high)

    return trial


def powered(values: list[float], chances: list[float]) -> Trial:
    """As many prompts as are said to be needed: is p < 0.05? Told as an interval that holds the truth."""
    gaps, weights = np.array(values), np.array(chances)
    effect = float(gaps @ weights)
    prompts = scoring.prompts_needed(100 * math.sqrt(float(gaps**2 @ weights) - effect**2), 100 * effect)

    def trial(rng: Generator) -> tuple[float, Bounds]:
        p = scoring.sign_flip_p(rng.choice(gaps, prompts, p=weights), seed=0, draws=2_000)
        return 0, (0, 0) if p < 0.05 else (1, 1)

    return trial


def rows(draws: int) -> Iterator[Row]:
    """The table."""
    for rate, prompts in ((0.5, 50), (0.5, 300), (0.8, 100), (0.95, 100), (0.95, 800)):
        yield Row("win rate", f"{100 * rate:.0f} %, {prompts} prompts", 95, win_rate(rate, prompts, draws))
    for over_seeds in (True, False):
        name = "win rate, 3 seeds, crossed" if over_seeds else "the same, prompts only"
        yield Row(name, "seeds ± 4 points, 300 prompts", 95, crossed(300, draws, over_seeds=over_seeds))
    for prompts in (50, 300):
        yield Row("paired difference", f"5 points, {prompts} prompts", 95, paired(prompts, draws))
    for star in (True, False):
        for theta, prompts in ((0.3, 50), (0.3, 300), (2.0, 100), (4.0, 100)):
            name = "Bradley–Terry, star" if star else "Bradley–Terry, round robin of 4"
            setting = f"{1000 + SCALE * theta:.0f} points, {prompts} prompts"
            yield Row(name, setting, 95, rating(prompts, draws, theta, star=star))
    yield Row("rating at equal style", "judge likes length, 200 prompts", 95, equal_style(200, min(draws, 300)))
    for rate, accuracy, leaning in ((0.5, 0.6, 0.7), (0.5, 0.9, 0.8), (0.9, 0.8, 1.0), (0.9, 0.95, 1.0)):
        for labelled in (corrected.MINIMUM_LABELS, 50, 100, 200):
            setting = f"truth {90 * rate + 5:.0f} %, judge right {100 * accuracy:.0f} %, {labelled} labels"
            yield Row("corrected win rate", setting, 95, judged(rate, accuracy, leaning, labelled))
    yield Row("power", "one order, 15 points", 80, powered([-1, 0, 1], [0.15, 0.55, 0.30]))
    yield Row("power", "one order, 5 points", 80, powered([-1, 0, 1], [0.2, 0.55, 0.25]))
    yield Row("power", "two orders, 8.5 points", 80, powered([-1, -0.5, 0, 0.5, 1], [0.08, 0.12, 0.5, 0.15, 0.15]))
    for seeds, everywhere in ((3, False), (3, True), (10, False)):
        setting = f"{seeds} seeds ± 8 points, 100 labels of {'all' if everywhere else 'one'}"
        yield Row("corrected win rate", setting, 95, judged_seeds(seeds, 100, everywhere=everywhere))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boards", type=int, default=1000, help="simulated boards a row")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws a board")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = []
    table = Table("what", "setting", "nominal, %", "measured, %", "mean width")
    for number, row in enumerate(track(list(rows(options.draws)), "simulating", console=Console(stderr=True))):
        rng = np.random.default_rng(number)
        trials = [row.trial(rng) for _ in range(options.boards)]
        held = 100 * float(np.mean([b is not None and b[0] <= truth <= b[1] for truth, b in trials]))
        widths = [b[1] - b[0] for _, b in trials if b is not None]
        open_ended = 100 * float(np.mean(~np.isfinite(widths)))
        width = f"{np.mean(np.array(widths)[np.isfinite(widths)]):.1f}" if open_ended < 100 else "–"
        width += f", {open_ended:.0f} % open" if open_ended else ""
        width = "–" if row.name == "power" else width
        table.add_row(row.name, row.setting, f"{row.nominal:.0f}", f"{held:.1f}", width)
        found.append(
            {"what": row.name, "setting": row.setting, "nominal": row.nominal, "measured": held, "width": width}
        )
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    Console().print(table)


if __name__ == "__main__":
    main()
