"""What a training step computes, and what this device could compute at most: for model-FLOP utilisation."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import torch

from dadpo_bench.models.precision import device
from dadpo_bench.models.stream import Stream


def training_flops(model: Any, stream: Stream) -> int:
    """FLOPs of a forward and backward pass over a stream: six a parameter and token, attention by its visible keys.

    As in PaLM (Chowdhery et al. 2022, appendix B), but the head counts at response tokens alone and attention
    is causal. What is recomputed backward is not counted.
    """
    body, config = model.get_decoder(), model.get_decoder().config
    embedding = body.get_input_embeddings().weight.numel()
    linear = sum(p.numel() for p in body.parameters()) - embedding
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 2 * config.num_hidden_layers * config.num_attention_heads * width * stream.layout.visible_keys
    head = model.get_output_embeddings().weight.numel()
    flops: int = 6 * (linear * stream.input_ids.shape[1] + head * len(stream.targets) + attention)
    return flops


@cache
def matmul_rate(dtype: torch.dtype) -> float:
    """FLOPs a second of a large matrix product on this device, measured once: the most a model could reach."""
    side = 2048 if device().type == "cpu" else 8192
    factor = torch.ones(side, side, dtype=dtype, device=device())

    def seconds() -> float:
        began = time.perf_counter()
        _ = factor @ factor
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        return time.perf_counter() - began

    return 2 * side**3 / min(seconds() for _ in range(4))
