"""Judge-free columns: the exact KL between two local models on sampled replies, nats a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from dadpo_bench.models.logprobs import SCORING_TOKENS, Head
from dadpo_bench.models.precision import Precision, device
from dadpo_bench.models.stream import Branching, Stream, batches_by_tokens, hidden_states, streaming


class Total(NamedTuple):
    """Summed nats and the tokens they were summed over."""

    nats: float
    tokens: int


@torch.no_grad()
def kl_divergence(p: Any, q: Any, samples: Sequence[Branching], precision: Precision) -> Total:
    """KL(p‖q) on samples drawn from p: at each response position the exact sum over the shared vocabulary."""
    nats, tokens = 0.0, 0
    heads = (Head(p), Head(q))
    shared = min(head.weight.shape[0] for head in heads)
    rows = max(1, heads[0].rows // 4)
    with streaming(p), streaming(q), precision.autocast():
        for batch in batches_by_tokens(samples, SCORING_TOKENS):
            stream = Stream.pack([samples[i] for i in batch], device())
            states = [hidden_states(model, stream) for model in (p, q)]
            for start in range(0, len(stream.targets), rows):
                log_p, log_q = (
                    head.logits(hidden[start : start + rows])[:, :shared].log_softmax(-1)
                    for head, hidden in zip(heads, states, strict=True)
                )
                nats += float((log_p.exp() * (log_p - log_q)).sum())
            tokens += len(stream.targets)
    return Total(nats, tokens)
