"""Drawing tokens: one uniform number a row and step, by inverse of the cumulative distribution.

`torch.multinomial` draws one exponential for every entry of the vocabulary, on a CPU a quarter of the time of
a sampled reply (`benchmarks/sampling.py`). And each row has a source of its own, so the numbers behind a
reply do not depend on its neighbours in the batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor


class Draw:
    """A logits processor that chooses: the drawn token alone stays possible, and `generate` decodes greedily.

    temperature > 0; top_p in (0, 1]: the smallest set of likeliest tokens with at least that mass. One seed a row.
    """

    def __init__(self, temperature: float, top_p: float, seeds: Sequence[int]) -> None:
        self._temperature, self._top_p = temperature, top_p
        self._sources = [random.Random(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) logits → (B, V): 0 at the drawn token, −inf elsewhere."""
        chances = torch.softmax(scores.float() / self._temperature, -1)
        order = None
        if self._top_p < 1:
            chances, order = chances.sort(-1, descending=True)
            chances = chances.masked_fill(chances.cumsum(-1) - chances >= self._top_p, 0.0)
        cumulative = chances.cumsum(-1)
        # In (0, 1], and the first entry to reach it: a token of no mass is never drawn.
        uniform = torch.tensor([[1 - source.random()] for source in self._sources], device=scores.device)
        drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:])
        token = drawn if order is None else order.gather(-1, drawn)
        return torch.full_like(scores, -torch.inf).scatter(-1, token, 0.0)
