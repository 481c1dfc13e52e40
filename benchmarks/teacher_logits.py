"""What a cache of the teacher's top-k logits takes and what it loses: the embedded teacher and its pruned copy.

Of every k: bytes a response token, the teacher's mass in the tail, and KL(teacher‖student) over the k tokens and the
tail, on replies sampled from the teacher. Behind it what the KL would move by, had the log-probs fewer bits.

usage: python benchmarks/teacher_logits.py [--prompts 12] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dadpo_bench import registry
from dadpo_bench.models import (
    Branching,
    Head,
    Stream,
    chat_tokenizer,
    device,
    find,
    frozen,
    hidden_states,
    load_model,
    respond,
    streaming,
)
from dadpo_bench.models.embedded import NAME
from dadpo_bench.models.pruning import prune
from dadpo_bench.types import Sampling
from trainers.divergences import between, buckets, divergence

CUTS = (8, 64, 256)


@torch.no_grad()
def logits_of(model: Any, branchings: list[Branching]) -> Tensor:
    """(T, V) at every response token."""
    stream = Stream.pack(branchings, device())
    with streaming(model, stream.longest):
        return Head(model).logits(hidden_states(model, stream))


def measure(student: Tensor, teacher: Tensor) -> list[dict[str, float]]:
    """A row for each k, means over the tokens; nats."""
    full = float(divergence(student, teacher, "forward_kl").mean())
    rows = []
    for k in CUTS:
        top = teacher.topk(k).indices
        ours, theirs = buckets(student, top), buckets(teacher, top)
        cut = between(ours, theirs, "forward_kl")
        row = {"k": k, "bytes": 8 * k + 4, "tail": float(theirs[:, -1].exp().mean()), "full": full}
        row["cut"] = float(cut.mean())
        for name, bits in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
            row[name] = float((between(ours, theirs.to(bits).float(), "forward_kl") - cut).abs().mean())
        rows.append(row)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=12, help="training prompts that the teacher answers")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    directory = find(NAME)
    tokenizer, teacher = chat_tokenizer(str(directory)), load_model(directory, frozen())
    prompts = registry.tasks.load("assistance")("train")[: options.prompts]
    replies = respond(teacher, tokenizer, prompts, Sampling(temperature=0.7), seed=0)
    branchings = [tokenizer.branching(r.prompt, [r.replies[0]], sampled=True) for r in replies]
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {"ratio": 0.2, "importance": "taylor", "prompts": prompts, "seed": 0}
        prune(directory, tokenizer, Path(folder), **settings)
        student = load_model(Path(folder), frozen())
    rows = measure(logits_of(student, branchings), logits_of(teacher, branchings))
    if options.json:
        print(json.dumps({"precision": str(frozen()), "rows": rows}))
        return
    tokens = sum(len(b.continuations[0]) for b in branchings)
    title = f"{tokens} tokens, {frozen()}, KL(teacher‖student) in full {rows[0]['full']:.4f} nats a token"
    table = Table("k", "bytes a token", "tail, %", "KL", "less than in full", "fp16 moves", "bf16 moves", title=title)
    for row in rows:
        figures = (row["cut"], row["full"] - row["cut"], row["fp16"], row["bf16"])
        table.add_row(f"{row['k']}", f"{row['bytes']}", f"{100 * row['tail']:.2f}", *(f"{x:.5f}" for x in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
