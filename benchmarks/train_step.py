"""Times training steps against limit A, interleaved in one run: a plain `model(input_ids, labels)` of as many tokens.

A step is forward and backward, the optimiser outside; weights in the machine's own compute format on both sides.
Pairs are random words with chat-like lengths (about 160 + 80 + 75 tokens), seeded.

usage: python benchmarks/train_step.py [--batch 8] [--steps 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timing import median_seconds

from dadpo_bench.models import (
    Branching,
    Precision,
    Stream,
    chat_tokenizer,
    device,
    find,
    frozen,
    load_model,
    streaming,
)
from dadpo_bench.models.embedded import NAME
from dadpo_bench.types import Example, Pair, Prompt, Reply
from trainers.dadpo import DaDPOConfig, dadpo_loss
from trainers.dpo import DPOConfig, dpo_loss
from trainers.loop import PolicyModel
from trainers.preference import PreferenceObjective
from trainers.sft import SFTObjective


def random_pairs(count: int, tokenizer: Any, seed: int = 0) -> list[Example]:
    """Pairs of random English words; lengths are log-normal, in words."""
    rng = random.Random(seed)
    words = sorted(w[1:] for w in tokenizer.raw.get_vocab() if w[0] == "Ġ" and w[1:].isascii() and w[1:].isalpha())

    def text(mu: float, sigma: float, low: int, high: int) -> str:
        length = int(min(high, max(low, rng.lognormvariate(mu, sigma))))
        return " ".join(rng.choice(words) for _ in range(length))

    signals = {name: Pair(-100.0, -120.0) for name in ("reference", "teacher")}
    return [
        Example(
            prompt=Prompt(id=str(i), turns=(text(4.9, 0.6, 30, 400),)),
            chosen=Reply(text=text(4.3, 0.5, 20, 250)),
            rejected=Reply(text=text(4.2, 0.5, 20, 250)),
            signals=signals,
        )
        for i in range(count)
    ]


def steps(batch: int, precision: Precision) -> tuple[int, dict[str, Callable[[], None]]]:
    """Unique tokens of the batch, and one closure for each contender."""
    directory = find(NAME)
    tokenizer = chat_tokenizer(str(directory))
    model = load_model(directory, precision).train()
    policy = PolicyModel(model, precision)
    examples = random_pairs(batch, tokenizer)
    tokens = sum(_branching(tokenizer, e).tokens for e in examples)
    flat = torch.randint(100, 40_000, (8, tokens // 8), generator=torch.Generator().manual_seed(0)).to(device())

    def ours(objective: Any) -> Callable[[], None]:
        stream = Stream.pack([objective.branching(tokenizer, e, sampled=False) for e in examples], device())

        def step() -> None:
            with streaming(model, stream.longest):
                loss, _ = objective.loss(policy, stream, examples)
                loss.backward()

        return step

    def dadpo(config: Any, own: Pair, s: dict[str, Pair]) -> Any:
        return dadpo_loss(*own, *s["reference"], *s["teacher"], config.beta_reference, config.beta_teacher)

    def dpo(config: Any, own: Pair, s: dict[str, Pair]) -> Any:
        return dpo_loss(*own, *s["reference"], config.beta)

    def limit() -> None:
        model(input_ids=flat, labels=flat).loss.backward()

    contenders = {
        "daDPO": ours(PreferenceObjective(DaDPOConfig(), dadpo, ("reference", "teacher"))),
        "DPO": ours(PreferenceObjective(DPOConfig(), dpo, ("reference",))),
        "SFT (chosen alone)": ours(SFTObjective()),
        "limit A": limit,
    }

    def cleared(step: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            step()
            model.zero_grad()

        return run

    return tokens, {name: cleared(step) for name, step in contenders.items()}


def _branching(tokenizer: Any, example: Example) -> Branching:
    assert example.rejected is not None
    return tokenizer.branching(example.prompt, [example.chosen, example.rejected], sampled=False)  # type: ignore[no-any-return]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="pairs a step")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each contender")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tokens, contenders = steps(options.batch, frozen())
    medians = median_seconds(contenders, options.steps)
    ratios = {name: median / medians["limit A"] for name, median in medians.items()}
    if options.json:
        print(json.dumps({"tokens": tokens, "precision": str(frozen()), "seconds": medians, "of_limit_a": ratios}))
        return
    table = Table("step", "seconds", "× limit A", title=f"{tokens} unique tokens, {frozen()}")
    for name, median in medians.items():
        table.add_row(name, f"{median:.2f}", f"{ratios[name]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
