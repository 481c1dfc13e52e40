"""Times the scoring of signals against a plain forward pass of as many tokens, by turns.

The plain pass is `model(input_ids)` without gradients, in eight rows without padding, in the same formats: the teacher
is scored with weights in the machine's compute format, the reference with fp32 weights.

usage: python benchmarks/signals.py [--pairs 16] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from timing import median_seconds
from workload import branchings_of, plain_rows, random_pairs

from dadpo_bench.models import Precision, chat_tokenizer, find, frozen, load_model, sequence_log_probs, training
from dadpo_bench.models.embedded import NAME

REQUIRED = 0.8
"""Of the plain pass's tokens a second."""


def contenders(pairs: int, precision: Precision) -> tuple[int, dict[str, Callable[[], object]]]:
    """Tokens of the pairs, and the two ways through them."""
    tokenizer, model = chat_tokenizer(str(find(NAME))), load_model(find(NAME), precision)
    branchings = branchings_of(random_pairs(pairs, tokenizer), tokenizer)
    tokens = sum(b.tokens for b in branchings)
    rows = plain_rows(tokens)

    @torch.no_grad()
    def plain() -> None:
        with precision.autocast():
            model(input_ids=rows)

    return tokens, {"scoring": partial(sequence_log_probs, model, branchings, precision), "plain": plain}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=16, help="pairs scored")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rates: dict[str, dict[str, float]] = {}
    for precision in dict.fromkeys((frozen(), training())):  # one model at a time, as when signals are made
        tokens, ways = contenders(options.pairs, precision)
        medians = median_seconds(ways, options.rounds)
        rates[str(precision)] = {name: tokens / median for name, median in medians.items()}
    if options.json:
        print(json.dumps({"pairs": options.pairs, "threads": torch.get_num_threads(), "tokens_per_second": rates}))
        return
    table = Table(
        "weights/arithmetic", title=f"{options.pairs} pairs, {tokens} tokens, {torch.get_num_threads()} threads"
    )
    for column in ("scoring, tokens/s", "plain, tokens/s", f"ratio (≥ {REQUIRED})"):
        table.add_column(column, justify="right")
    for name, rate in rates.items():
        ratio = rate["scoring"] / rate["plain"]
        mark = "[green]ok[/]" if ratio >= REQUIRED else "[red]NOT MET[/]"
        table.add_row(name, f"{rate['scoring']:.0f}", f"{rate['plain']:.0f}", f"{ratio:.2f} {mark}")
    Console().print(table)


if __name__ == "__main__":
    main()
