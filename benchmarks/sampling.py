"""Times sampled replies with our draw against `torch.multinomial` and against greedy decoding, interleaved.

usage: python benchmarks/sampling.py [--batch 24] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timing import median_seconds

from dadpo_bench.models import chat_tokenizer, device, find, frozen, load_model
from dadpo_bench.models.embedded import NAME
from dadpo_bench.models.sampling import Draw

NEW_TOKENS = 64


def contenders(batch: int) -> dict[str, Callable[[], Any]]:
    """Each draws `NEW_TOKENS` tokens for `batch` equal prompts; none may end early."""
    directory = find(NAME)
    tokenizer, model = chat_tokenizer(str(directory)), load_model(directory, frozen())
    ids = torch.randint(100, 40_000, (batch, 60), generator=torch.Generator().manual_seed(0)).to(device())

    def generate(**settings: Any) -> None:
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=tokenizer.pad_id,
            **settings,
        )

    def drawn(top_p: float) -> None:
        generate(do_sample=False, logits_processor=[Draw(0.7, top_p, range(batch))])

    return {
        "greedy": partial(generate, do_sample=False),
        "our draw": partial(drawn, 1.0),
        "our draw, top-p 0.9": partial(drawn, 0.9),
        "torch.multinomial": partial(generate, do_sample=True, temperature=0.7, top_k=0),
        "torch.multinomial, top-p 0.9": partial(generate, do_sample=True, temperature=0.7, top_k=0, top_p=0.9),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=24, help="replies drawn together")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each contender")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    medians = median_seconds(contenders(options.batch), options.rounds)
    rates = {name: options.batch * NEW_TOKENS / median for name, median in medians.items()}
    if options.json:
        print(json.dumps({"precision": str(frozen()), "tokens_per_second": rates}))
        return
    table = Table("decoding", "tokens/s", "× greedy's time", title=f"{options.batch} replies, {frozen()}")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.0f}", f"{medians[name] / medians['greedy']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
