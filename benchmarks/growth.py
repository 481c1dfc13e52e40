"""Measures what grows: daDPO's seconds a token from one to eight times the batch, and the memory of the head.

Time: the same pairs once, twice, four and eight times in a batch, by turns, so that each batch has the same lengths.
Memory: log-probs and gradients of a head alone, beyond its weight, its weight's gradient and the hidden states it is
given, at two sizes of vocabulary and two of batch, each in a process of its own.

usage: python benchmarks/growth.py [--base 2] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
from types import SimpleNamespace

import torch
from memory import in_own_process
from rich.console import Console
from rich.table import Table
from timing import median_seconds
from train_step import DADPO, objectives, our_step
from workload import random_pairs

from dadpo_bench.models import (
    Branching,
    Head,
    Precision,
    Stream,
    chat_tokenizer,
    device,
    find,
    frozen,
    token_log_probs,
    training,
)
from dadpo_bench.models.embedded import NAME
from dadpo_bench.models.logprobs import CHUNK_BYTES
from dadpo_bench.models.memory import peak_bytes, resident_bytes

TIMES = (1, 2, 4, 8)
VOCABULARIES, TOKENS, HIDDEN = (49_152, 262_144), (512, 4096), 576
FORMATS = {str(precision): precision for precision in (frozen(), training())}
CONSTANT = 4 * CHUNK_BYTES
"""Bound on the head's memory: one chunk's logits in fp32, and what is made of them."""


def seconds_a_token(base: int, rounds: int) -> dict[int, float]:
    """Of a daDPO step, by multiple of the base batch."""
    examples = random_pairs(base, chat_tokenizer(str(find(NAME))))
    steps = {n: our_step(objectives()[DADPO], examples * n, frozen()) for n in TIMES}
    medians = median_seconds({str(n): made.step for n, made in steps.items()}, rounds)
    return {n: medians[str(n)] / made.tokens for n, made in steps.items()}


def head_growth(vocabulary: int, tokens: int, precision: Precision) -> int:
    """Bytes that this process, which holds nothing else, grows by."""

    def read(weight: torch.nn.Parameter, hidden: torch.Tensor) -> None:
        model = SimpleNamespace(get_output_embeddings=lambda: SimpleNamespace(weight=weight), config=None)
        stream = Stream.pack([Branching([0], [[1] * len(hidden)])], device())
        token_log_probs(Head(model), hidden, stream, precision.compute).sum().backward()

    def filled(rows: int) -> torch.Tensor:
        return torch.empty(rows, HIDDEN, dtype=precision.weights, device=device()).normal_()

    read(torch.nn.Parameter(filled(512)), filled(64).requires_grad_())  # threads and kernels are set up
    weight, hidden = torch.nn.Parameter(filled(vocabulary)), filled(tokens).requires_grad_()
    held = resident_bytes()
    read(weight, hidden)
    assert weight.grad is not None
    return peak_bytes() - held - weight.grad.nbytes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=int, default=2, help="pairs of the smallest batch")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each batch")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--head", nargs=3, help=argparse.SUPPRESS)  # what this script runs itself with
    options = parser.parse_args()
    if options.head:
        name, vocabulary, tokens = options.head
        print(head_growth(int(vocabulary), int(tokens), FORMATS[name]))
        return
    heads = {
        (name, vocabulary, tokens): in_own_process(__file__, "--head", name, str(vocabulary), str(tokens))
        for name, vocabulary, tokens in itertools.product(FORMATS, VOCABULARIES, TOKENS)
    }
    seconds = seconds_a_token(options.base, options.rounds)
    if options.json:
        rows = [{"format": f, "vocabulary": v, "tokens": t, "bytes": b} for (f, v, t), b in heads.items()]
        print(json.dumps({"threads": torch.get_num_threads(), "seconds_a_token": seconds, "head_growth": rows}))
    else:
        show(seconds, heads, options.base)


def show(seconds: dict[int, float], heads: dict[tuple[str, int, int], int], base: int) -> None:
    """Two tables."""
    console = Console()
    table = Table("pairs", title=f"daDPO step, {frozen()}, {torch.get_num_threads()} threads")
    table.add_column("ms/token", justify="right")
    table.add_column("× the smallest batch's (0.9 to 1.1)", justify="right")
    for times, value in seconds.items():
        ratio = value / seconds[1]
        table.add_row(str(base * times), f"{1000 * value:.2f}", f"{ratio:.2f} {mark(0.9 <= ratio <= 1.1)}")
    console.print(table)
    table = Table("weights/arithmetic", title="the head's memory beyond its weight and gradient")
    for column in ("vocabulary", "response tokens", f"MiB (≤ {CONSTANT // 2**20})"):
        table.add_column(column, justify="right")
    for (name, vocabulary, tokens), grown in heads.items():
        table.add_row(name, f"{vocabulary:,}", f"{tokens:,}", f"{grown / 2**20:.0f} {mark(grown <= CONSTANT)}")
    console.print(table)


def mark(met: bool) -> str:
    """Whether a requirement holds."""
    return "[green]ok[/]" if met else "[red]NOT MET[/]"


if __name__ == "__main__":
    main()
