"""What a training step computes, and what this device could compute at most: for model-FLOP utilisation."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from dadpo_bench.models.precision import device
from dadpo_bench.models.shape import Shape, shape_of
from dadpo_bench.models.stream import Stream


def forward_flops(shape: Shape, tokens: float, targets: float, visible_keys: float) -> float:
    """FLOPs of a forward pass: two a parameter and token, the head at `targets` alone, attention by its visible keys.

    A training step takes three times as many. As in PaLM (Chowdhery et al. 2022, appendix B), but attention is
    causal. What is recomputed backward is not counted.
    """
    attention = 2 * shape.layers * shape.queries * visible_keys
    return 2 * (shape.linear * tokens + shape.head * targets + attention)


def training_flops(model: Any, stream: Stream) -> int:
    """FLOPs of a forward and backward pass over a stream; frozen weights have no gradient of their own."""
    flops = forward_flops(shape_of(model), stream.tokens, len(stream.targets), stream.layout.visible_keys)
    return int(flops * (3 if all(p.requires_grad for p in model.parameters()) else 2))


@cache
def matmul_rate(dtype: torch.dtype) -> float:
    """FLOPs a second of a large matrix product on this device, measured once: the most a model could reach."""
    side = 2048 if device().type == "cpu" else 8192
    factor = torch.ones(side, side, dtype=dtype, device=device())
    return 2 * side**3 / _seconds(lambda: factor @ factor)


@cache
def memory_bandwidth() -> float:
    """Bytes a second that this device reads from its memory, measured once."""
    numbers = torch.ones(2**27, dtype=torch.float32, device=device())
    return numbers.nbytes / _seconds(numbers.sum)


def _seconds(work: Callable[[], object]) -> float:
    """The least of four tries, the device's queue emptied in each."""

    def once() -> float:
        began = time.perf_counter()
        work()
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        return time.perf_counter() - began

    return min(once() for _ in range(4))
