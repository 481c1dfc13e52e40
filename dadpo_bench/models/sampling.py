"""Drawing tokens: one uniform number a row and step, by inverse of the cumulative distribution.

`torch.multinomial` draws one exponential for every entry of the vocabulary, on a CPU a quarter of the time of
a sampled reply (`benchmarks/sampling.py`). And each row has a source of its own, so the numbers behind a
reply do not depend on its neighbours in the batch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

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


class Watched:
    """A logits processor that notes what the model gives its `count` likeliest tokens and the one that is chosen.

    Log-probs in nats, in fp32, before temperature and nucleus: the model's own. `choose` draws; greedy without it.
    """

    def __init__(self, count: int, choose: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        self._count, self._choose = count, choose
        self._steps: list[tuple[list[list[int]], list[list[float]]]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) logits → (B, V), those of `choose`."""
        choice = self._choose(input_ids, scores) if self._choose else scores
        log_probs = scores.float().log_softmax(-1)
        likeliest = log_probs.topk(min(self._count, scores.shape[-1])).indices
        tokens = torch.cat((likeliest, choice.argmax(-1, keepdim=True)), -1)
        self._steps.append((tokens.tolist(), log_probs.gather(-1, tokens).tolist()))
        return choice

    def places(self, row: int, count: int) -> list[Mapping[int, float]]:
        """Log-probs by token id at each of the first `count` places of a row's continuation."""
        return [dict(zip(ids[row], values[row], strict=True)) for ids, values in self._steps[:count]]
