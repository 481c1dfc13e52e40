"""Compares what `dadpo-bench plan` predicts of a training with what it takes: peak memory and FLOPs.

Trains the embedded model for two optimiser steps, each training in a process of its own. Memory is the growth of the
process's peak resident set over what it holds behind a training of a tiny model; FLOPs are those torch's
FlopCounterMode counts in one forward and backward pass. Pairs are those of `train_step.py`.

glibc keeps freed blocks below 32 MB for itself, in pieces that later tensors do not fit into: it is told to give them
back, so that the resident set is what the training holds. `--as-is` leaves it so.

usage: python benchmarks/planning.py [--micro 512 1536] [--as-is] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode
from train_step import random_pairs
from transformers import AutoConfig, AutoModelForCausalLM

from dadpo_bench import registry
from dadpo_bench.models import (
    Branching,
    Stream,
    batches_by_tokens,
    chat_tokenizer,
    device,
    find,
    load_model,
    sequence_log_probs,
    streaming,
    training,
)
from dadpo_bench.models.embedded import NAME
from dadpo_bench.models.flops import training_flops
from dadpo_bench.models.memory import peak_bytes, release_memory, resident_bytes
from dadpo_bench.models.shape import shape_of
from dadpo_bench.planning import footprint
from dadpo_bench.types import Example, Job, Pair, Reply
from trainers.step import PolicyModel

BATCH, STEPS = 24, 2


def branching(tokenizer: Any, example: Example, method: str) -> Branching:
    """As the method lays the example out."""
    replies: list[Reply | None] = [example.chosen, example.rejected if method == "dadpo" else None]
    return tokenizer.branching(example.prompt, [r for r in replies if r], sampled=False)  # type: ignore[no-any-return]


def stored_signals(directory: Path, branchings: list[Branching]) -> list[dict[str, Pair]]:
    """What the pre-flight checks; another model's signals would do for the teacher, whose weights are not needed."""
    scores = sequence_log_probs(load_model(directory, training()), branchings, training())
    release_memory()
    return [dict.fromkeys(("reference", "teacher"), Pair(*(side.total for side in row))) for row in scores]


def tiny_model(directory: Path, output: Path) -> None:
    """The same architecture and tokenizer in one narrow layer."""
    config = AutoConfig.from_pretrained(directory, num_hidden_layers=1, hidden_size=36, intermediate_size=64)
    config.head_dim = 4
    AutoModelForCausalLM.from_config(config).save_pretrained(output)
    chat_tokenizer(str(directory)).raw.save_pretrained(output)


def train(method: str, start: Path, examples: list[Example], branchings: list[Branching], micro: int) -> None:
    """A whole training, as `run` does it."""
    signals = stored_signals(start, branchings) if method == "dadpo" else [{}] * len(examples)
    with tempfile.TemporaryDirectory() as folder:
        registry.methods.load(method).train(
            Job(
                start=start,
                output=Path(folder),
                examples=[e.model_copy(update={"signals": s}) for e, s in zip(examples, signals, strict=True)],
                settings={"micro_batch_tokens": micro, "batch_size": BATCH, "learning_rate": 1e-6},
                seed=0,
                teacher=start if method == "kd" else None,
                sampled_ids=False,
            )
        )


def measure(method: str, micro: int) -> dict[str, float]:
    """Train in this process; returns predictions and measurements, bytes and FLOPs."""
    directory = find(NAME)
    tokenizer = chat_tokenizer(str(directory))
    examples = random_pairs(BATCH * STEPS, tokenizer)
    branchings = [branching(tokenizer, e, method) for e in examples]
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small"
        tiny_model(directory, small)
        train(method, small, examples[:4], branchings[:4], micro)  # brings in the libraries' code
        release_memory()
        base = resident_bytes()
        train(method, directory, examples, branchings, micro)
        grown = peak_bytes() - base
    model = load_model(directory, training())
    shape, compute = shape_of(model), training().compute.itemsize
    longest = max(b.tokens for b in branchings)
    tokens = max(micro, longest)
    targets = tokens * sum(len(y) for b in branchings for y in b.continuations) / sum(b.tokens for b in branchings)
    predicted = footprint.training(shape, tokens, targets, compute, teacher=shape if method == "kd" else None)
    batch = batches_by_tokens(branchings, micro)[0]
    stream = Stream.pack([branchings[i] for i in batch], device())
    counter = FlopCounterMode(display=False)
    with streaming(model, stream.longest), counter:
        PolicyModel(model, training())(stream).sum().backward()
    return {
        "predicted_bytes": predicted.total,
        "measured_bytes": grown,
        "predicted_flops": training_flops(model, stream),
        "measured_flops": counter.get_total_flops(),
        **predicted._asdict(),
    }


def main() -> None:
    """Measure each training in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--micro", type=int, nargs="+", default=[512, 1536], help="micro_batch_tokens to try")
    parser.add_argument("--as-is", action="store_true", help="leave glibc its freed blocks")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.micro[0])))
        return
    give_back = {} if options.as_is else {f"MALLOC_{what}_THRESHOLD_": "65536" for what in ("MMAP", "TRIM")}
    rows = []
    for method in ("dadpo", "kd"):
        for micro in options.micro:
            command = [sys.executable, __file__, "--one", method, "--micro", str(micro)]
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **give_back}
            )
            rows.append({"method": method, "micro_batch_tokens": micro, **json.loads(done.stdout)})
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("method", "micro", "memory: predicted", "measured", "", "FLOPs: predicted", "measured", "")
    for row in rows:
        cells = []
        for what, unit, name in (("bytes", 1e9, "GB"), ("flops", 1e12, "TFLOP")):
            predicted, measured = row[f"predicted_{what}"], row[f"measured_{what}"]
            cells += [f"{predicted / unit:.2f} {name}", f"{measured / unit:.2f}", f"{predicted / measured - 1:+.1%}"]
        table.add_row(row["method"], str(row["micro_batch_tokens"]), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
