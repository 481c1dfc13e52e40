"""Chooses the embedded recipe's learning rates, on the validation split alone, with equal trials for every contestant.

Criterion: PMI outcome over 4 samples a prompt (temperature 1), against the teacher for `sft`, against the chosen
dSFT for everybody else. Ties go to the smaller learning rate; KL to the teacher is never looked at.
Resumable: everything is kept in the store.

usage: python benchmarks/tune.py [CONTESTANT…] [--store FILE] [--recipe NAME] [--set KEY=VALUE] [--json FILE]
(all of the recipe's contestants; where `sft` is not among those named, dSFT is trained at the recipe's rate)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from dadpo_bench import registry
from dadpo_bench.engine import LocalEngine
from dadpo_bench.judging.comparisons import OpenJudge, ask, construct_judge, note_judge
from dadpo_bench.models import frozen, training
from dadpo_bench.pipeline import SHARED_SEED
from dadpo_bench.progress import Reporter
from dadpo_bench.recipe import DEFAULT, FIRST, Recipe, load_recipe
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.responses import Stored, collect_responses
from dadpo_bench.stages.signals import Scored, collect_signals
from dadpo_bench.stages.students import student_of, train
from dadpo_bench.stages.teachers import teacher_of
from dadpo_bench.store import open_store, schema
from dadpo_bench.tasks import load_task
from dadpo_bench.types import Example, JudgeContext, Sampling

SAMPLES = 4
_ON_RESPONSES, _ON_PAIRS, _FROM_DSFT = (3e-5, 1e-4, 3e-4, 1e-3), (3e-6, 1e-5, 3e-5, 1e-4), (1e-5, 3e-5, 1e-4, 3e-4)
GRID = {
    "sft": _ON_RESPONSES,
    "kd": _ON_RESPONSES,
    "dpo": _ON_PAIRS,
    "dpo-matched": _ON_PAIRS,
    "dadpo": _ON_PAIRS,
    "dpkd": _ON_PAIRS,
    "ipo": _ON_PAIRS,
    "distillm2": _FROM_DSFT,
    "on_policy_kd": _FROM_DSFT,
}


class Tuner:
    """One teacher, one student, one validation split."""

    def __init__(self, bench: Bench, recipe: Recipe) -> None:
        self.bench, self.recipe = bench, recipe
        prompts = load_task(recipe.prompts.task, "train", recipe.prompts.train).prompts
        self.validation = load_task(recipe.prompts.task, "validation", 32).prompts
        self.teacher = teacher_of(bench, recipe)
        self.student = student_of(bench, recipe, prompts)
        context = JudgeContext(lambda: self.teacher.directory, self.teacher.chat_template)
        self.judge: OpenJudge = note_judge(bench, "pmi", *construct_judge("pmi", {}, context))
        sampling = recipe.teacher_sampling
        self.taught = collect_responses(bench, self.teacher, prompts, sampling, SHARED_SEED, "teacher's responses")

    def samples(self, model: LocalModel, label: str) -> list[list[Stored]]:
        """[sample][prompt] of a model on the validation prompts."""
        limit = self.recipe.evaluation.sampling.max_new_tokens
        drawn = Sampling(temperature=1.0, max_new_tokens=limit, batch_size=32)
        return [collect_responses(self.bench, model, self.validation, drawn, seed, label) for seed in range(SAMPLES)]

    def outcome(self, ours: Sequence[Sequence[Stored]], theirs: Sequence[Sequence[Stored]], label: str) -> float:
        """Per cent of (prompt, sample) cells won, ties half."""
        matches = [match for a, b in zip(ours, theirs, strict=True) for match in zip(a, b, strict=True)]
        ask(self.bench, self.judge, matches, label)
        with self.bench.store.read() as session:
            query = select(schema.Rating).where(schema.Rating.judge_key == self.judge.key)
            value = {r.response_key: r.value for r in session.scalars(query)}
        wins = [0.5 + 0.5 * np.sign(value[a.key] - value[b.key]) for a, b in matches]
        return 100 * float(np.mean(wins))

    def train(self, name: str, rate: float, start: LocalModel, examples: Sequence[Example]) -> LocalModel:
        """A contestant's checkpoint at one learning rate, the recipe's other settings."""
        settings = {**self.recipe.method_settings(name), "learning_rate": rate}
        return train(self.bench, f"{name}-{rate:g}", settings, start, self.teacher, examples, 0, sampled=True)

    def pairs(self, dsft: LocalModel) -> list[Example]:
        """The pairs and signals of one dSFT student."""
        prompts = [s.response.prompt for s in self.taught]
        own = collect_responses(self.bench, dsft, prompts, self.recipe.student_sampling, 0, "student's responses")
        scored = [
            Scored(t.response.prompt, t.response.replies[0], s.response.replies[0])
            for t, s in zip(self.taught, own, strict=True)
        ]
        sources = {"reference": (dsft, training()), "teacher": (self.teacher, frozen())}
        signals = {
            name: collect_signals(
                self.bench,
                model,
                scored,
                precision,
                sampled=True,
                label=f"{name} signals",
            )
            for name, (model, precision) in sources.items()
        }
        return [
            Example(
                prompt=s.prompt, chosen=s.chosen, rejected=s.rejected, signals={n: v[i] for n, v in signals.items()}
            )
            for i, s in enumerate(scored)
        ]


def tune(bench: Bench, recipe: Recipe, contestants: Sequence[str]) -> list[dict[str, Any]]:
    """All trials of the contestants, in order."""
    tuner = Tuner(bench, recipe)
    lessons = [Example(prompt=s.response.prompt, chosen=s.response.replies[0]) for s in tuner.taught]
    trials: list[dict[str, Any]] = []

    def trial(name: str, rate: float, model: LocalModel, against: Sequence[Sequence[Stored]]) -> None:
        label = f"{name} at {rate:g}"
        score = tuner.outcome(tuner.samples(model, f"{label}: samples"), against, f"{label}: pmi")
        trials.append({"contestant": name, "learning_rate": rate, "outcome": score})
        bench.reporter.say(f"{label}: {score:.1f}")

    def best(name: str) -> float:
        mine = [t for t in trials if t["contestant"] == name]
        return float(min(mine, key=lambda t: (-t["outcome"], t["learning_rate"]))["learning_rate"])

    if FIRST in contestants:
        teacher = tuner.samples(tuner.teacher, "teacher's samples")
        for rate in GRID[FIRST]:
            trial(FIRST, rate, tuner.train(FIRST, rate, tuner.student, lessons), teacher)
    rate = best(FIRST) if FIRST in contestants else recipe.method_settings(FIRST)["learning_rate"]
    dsft = tuner.train(FIRST, rate, tuner.student, lessons)
    baseline = tuner.samples(dsft, "dSFT's samples")
    examples = tuner.pairs(dsft)
    for name in (c for c in contestants if c != FIRST):
        entry = registry.methods[recipe.methods[name].method]
        start = dsft if entry.start == "dsft" else tuner.student
        for rate in GRID[name]:
            trial(name, rate, tuner.train(name, rate, start, examples if entry.data == "pairs" else lessons), baseline)
    for t in trials:
        t["chosen"] = t["learning_rate"] == best(t["contestant"])
    return trials


def main() -> None:
    """Run the grid and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="build/tune.sqlite3")
    parser.add_argument("contestants", nargs="*")
    parser.add_argument("--recipe", default=DEFAULT)
    parser.add_argument("--set", action="append", default=[], help="change the recipe: dotted.key=value")
    parser.add_argument("--json", help="write the trials to this file")
    options = parser.parse_args()
    console = Console()
    bench = Bench(open_store(options.store), LocalEngine(), Reporter(console))
    recipe = load_recipe(options.recipe, options.set).including(options.contestants)
    with bench.reporter.running():
        trials = tune(bench, recipe, options.contestants or [c for c in GRID if c in recipe.methods])
    table = Table("contestant", "learning rate", "PMI outcome, %", "chosen")
    for t in trials:
        table.add_row(t["contestant"], f"{t['learning_rate']:g}", f"{t['outcome']:.1f}", "yes" if t["chosen"] else "")
    console.print(table)
    if options.json:
        Path(options.json).write_text(json.dumps(trials, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
