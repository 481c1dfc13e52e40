"""Times one batch of a stage on this machine, and what it holds, against what `plan` says of it.

The models have a config's shape and random weights, so no weights are needed: the teacher answers prompts, each reply
as long as the limit lets it be, and scores pairs; the student, pruned as the recipe says, takes steps of daDPO
with fp32 masters. Code, formats and settings are those of a run. Each stage has a process of its own.

    s           of a batch, and beside it what `plan` says of its FLOPs and bytes at that utilisation
    reached     share of the device's FLOPs (of its bandwidth where replies are sampled) at which `plan` would be right
    peak GB     most that was held, and beside it `plan`'s

usage: python benchmarks/batches.py [--config FILE] [--gpu NAME] [--utilisation 0.4] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate import Accelerator
from memory import in_own_process
from rich.console import Console
from rich.table import Table
from timing import median_seconds
from workload import branchings_of, random_pairs

from dadpo_bench.models import (
    Branching,
    Precision,
    chat_tokenizer,
    device,
    find,
    frozen,
    sequence_log_probs,
    training,
)
from dadpo_bench.models.embedded import NAME
from dadpo_bench.models.flops import matmul_rate
from dadpo_bench.models.generation import continuations
from dadpo_bench.models.memory import peak_bytes, release_memory
from dadpo_bench.models.sampling import Draw
from dadpo_bench.models.shape import hollow_model, shape_of
from dadpo_bench.plan import make_plan
from dadpo_bench.planning import Load, Sample, Score, Setting, Shapes, Train, forecast_of, hardware_of, loads
from dadpo_bench.recipe import Recipe, load_recipe
from dadpo_bench.stages import Stage
from dadpo_bench.stages.signals import PAIRS
from trainers import dadpo
from trainers.preference import PreferenceObjective
from trainers.step import Lessons, PolicyModel, Step

CONFIG = Path(__file__).parents[1] / "examples" / "configs" / "vicuna-7b-v1.5.json"
STAGES = (Stage.teacher_responses, Stage.signals, Stage.train)

Kind = TypeVar("Kind", bound=Load)


class Timed(NamedTuple):
    """One batch of a stage."""

    stage: str
    batch: str
    seconds: float
    planned_seconds: float
    reached: float
    """Share of the device's figures."""
    peak: int
    planned_peak: float


class Batch(NamedTuple):
    """What is timed, and its sizes."""

    load: Load
    work: Callable[[], object]


def random_model(config: dict[str, Any], precision: Precision, prune: tuple[float, int] | None = None) -> Any:
    """On this machine's device, its vocabulary wide enough for the tokenizer at hand."""
    model = hollow_model(config, prune).to(precision.weights).to_empty(device=device())
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
    fresh = type(model.model.rotary_emb)(model.config)  # buffers that no checkpoint holds
    model.model.rotary_emb = fresh.to(device())
    return model.eval()


def first(recipe: Recipe, kind: type[Kind], stage: Stage, who: str) -> Kind:
    """That work of the recipe, as `plan` counts it."""
    plan = make_plan(recipe, ["dadpo"], 1)
    return next(load for load in loads(plan) if isinstance(load, kind) and (load.stage, load.who) == (stage, who))


def answering(recipe: Recipe, model: Any) -> Batch:
    """Prompts of the recipe's mean length, replies of its limit."""
    load, sampling = first(recipe, Sample, Stage.teacher_responses, "teacher"), recipe.teacher_sampling
    rng, rows = random.Random(0), sampling.batch_size
    ids = [[rng.randrange(100, 30_000) for _ in range(int(load.prompt))] for _ in range(rows)]
    tokenizer = chat_tokenizer(str(find(NAME)))
    draw = [Draw(sampling.temperature, sampling.top_p, range(rows))] if sampling.temperature else []
    answer = partial(continuations, model, tokenizer, ids, sampling.max_new_tokens, draw)
    return Batch(replace(load, examples=rows, batches=1, longest=load.prompt, reply=sampling.max_new_tokens), answer)


def scoring(recipe: Recipe, model: Any) -> Batch:
    """Pairs of the recipe's mean length."""
    load, rng = first(recipe, Score, Stage.signals, "teacher"), random.Random(0)

    def tokens(number: float) -> list[int]:
        return [rng.randrange(100, 30_000) for _ in range(int(number))]

    pairs = [Branching(tokens(load.prompt), [tokens(load.reply) for _ in range(2)]) for _ in range(PAIRS)]
    return Batch(replace(load, examples=PAIRS), partial(sequence_log_probs, model, pairs, frozen()))


def learning(recipe: Recipe, model: Any) -> Batch:
    """An optimiser step on pairs of random words, chat-like in length."""
    load = first(recipe, Train, Stage.train, "dadpo")
    config = dadpo.DaDPOConfig.model_validate(
        {k: v for k, v in recipe.method_settings("dadpo").items() if k in dadpo.DaDPOConfig.model_fields}
    )
    tokenizer, model = chat_tokenizer(str(find(NAME))), model.train()
    examples = random_pairs(load.batch_size, tokenizer)
    branchings = branchings_of(examples, tokenizer)
    accelerator = Accelerator(cpu=device().type == "cpu", mixed_precision="no")
    policy = PolicyModel(model, training())
    optimiser = torch.optim.AdamW(policy.parameters(), lr=config.learning_rate, fused=True)
    wrapped, optimiser = accelerator.prepare(policy, optimiser)
    objective = PreferenceObjective(config, dadpo._loss, ("reference", "teacher"))
    step = Step(accelerator, wrapped, optimiser, objective, config, matmul_rate(training().compute))
    numbers = range(len(examples))
    replies = [len(y) for b in branchings for y in b.continuations]
    sizes = replace(
        load,
        examples=len(examples),
        prompt=sum(len(b.prompt) for b in branchings) / len(branchings),
        reply=sum(replies) / len(replies),
        longest=max(len(b.prompt) for b in branchings),
        limit=max(replies),
    )
    return Batch(sizes, partial(step.take, Lessons(examples, branchings), numbers, config.learning_rate, 1))


def timed(stage: Stage, options: argparse.Namespace) -> Timed:
    """In this process, which holds nothing else."""
    recipe = load_recipe(options.recipe)
    hardware = hardware_of(options.gpu)
    release_memory()  # what measuring the hardware took
    config = json.loads(options.config.read_text())
    config["vocab_size"] = max(config["vocab_size"], len(chat_tokenizer(str(find(NAME))).raw))
    prune = recipe.student.prune
    if stage is Stage.train:
        model = random_model(config, training(), prune and (prune.ratio, prune.groups))
    else:
        model = random_model(config, frozen())
    shape = shape_of(model)
    make = {Stage.teacher_responses: answering, Stage.signals: scoring, Stage.train: learning}[stage]
    load, work = make(recipe, model)
    seconds = median_seconds({"batch": work}, options.rounds)["batch"]
    said = forecast_of(load, Shapes(shape, shape, shape), Setting(hardware, 1, options.utilisation))
    planned = 3600 * said.hours
    unit = {Sample: "prompts", Score: "pairs", Train: "pairs, a step"}[type(load)]
    batch = f"{load.examples} {unit}, {shape.parameters / 1e9:.2f}B"
    reached = options.utilisation * planned / seconds
    return Timed(str(stage), batch, seconds, planned, reached, peak_bytes(), said.memory.total)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="vicuna-7b-pruned20")
    parser.add_argument("--config", type=Path, default=CONFIG, help="config.json of the teacher")
    parser.add_argument("--gpu", help="as `plan --gpu`; this machine as measured if left out")
    parser.add_argument("--utilisation", type=float, default=0.4)
    parser.add_argument("--rounds", type=int, default=3, help="timed batches, behind one that warms up")
    parser.add_argument("--stage", choices=[str(s) for s in STAGES], action="append")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(timed(Stage(options.one), options)))
        return
    given = ["--recipe", options.recipe, "--config", str(options.config), "--rounds", str(options.rounds)]
    given += ["--utilisation", str(options.utilisation), *(["--gpu", options.gpu] if options.gpu else [])]
    wanted = options.stage or [str(stage) for stage in STAGES]
    found = [Timed(*in_own_process(__file__, "--one", stage, *given)) for stage in wanted]
    if options.json:
        print(json.dumps([one._asdict() for one in found], indent=1))
        return
    table = Table("stage", "batch", title=f"{torch.get_num_threads()} threads" if device().type == "cpu" else None)
    for head in ("s", "planned", "reached", "peak GB", "planned"):
        table.add_column(head, justify="right")
    for one in found:
        times, sizes = (one.seconds, one.planned_seconds), (one.peak / 1e9, one.planned_peak / 1e9)
        cells = (*(f"{t:.2f}" for t in times), f"{one.reached:.2f}", *(f"{size:.2f}" for size in sizes))
        table.add_row(one.stage, one.batch, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
