"""What is timed: seeded pairs of random words with chat-like lengths, and as many tokens in plain rows."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from dadpo_bench.models import Branching, ChatTokenizer, device
from dadpo_bench.types import Example, Pair, Prompt, Reply

ROWS = 8
"""Rows of a plain batch."""


def random_pairs(count: int, tokenizer: ChatTokenizer, seed: int = 0) -> list[Example]:
    """Pairs of random English words, about 160 + 80 + 75 tokens; lengths are log-normal, in words."""
    rng = random.Random(seed)
    words = sorted(w[1:] for w in tokenizer.raw.get_vocab() if w[0] == "Ġ" and w[1:].isascii() and w[1:].isalpha())

    def length(mu: float, sigma: float, low: int, high: int) -> int:
        return int(min(high, max(low, rng.lognormvariate(mu, sigma))))

    def text(count: int) -> str:
        return " ".join(rng.choice(words) for _ in range(count))

    def pair(number: int) -> Example:
        prompt, chosen, rejected = length(4.9, 0.6, 30, 400), length(4.3, 0.5, 20, 250), length(4.2, 0.5, 20, 250)
        return Example(
            prompt=Prompt(id=str(number), turns=(text(prompt),)),
            chosen=Reply(text=text(chosen)),
            rejected=Reply(text=text(rejected)),
            signals={name: Pair(-100.0, -120.0) for name in ("reference", "teacher")},
        )

    return [pair(number) for number in range(count)]


def branchings_of(examples: Sequence[Example], tokenizer: ChatTokenizer) -> list[Branching]:
    """[prompt | chosen | rejected] of every pair."""

    def branching(example: Example) -> Branching:
        assert example.rejected is not None
        return tokenizer.branching(example.prompt, [example.chosen, example.rejected], sampled=False)

    return [branching(example) for example in examples]


def plain_rows(tokens: int) -> Tensor:
    """(ROWS, tokens / ROWS) random ids: what a model is given that has neither prompts to share nor padding."""
    return torch.randint(100, 40_000, (ROWS, tokens // ROWS), generator=torch.Generator().manual_seed(0)).to(device())
