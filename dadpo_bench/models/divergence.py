"""Judge-free columns: the exact KL between two local models on sampled replies, nats a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from dadpo_bench.models.logprobs import SCORING_TOKENS, Head
from dadpo_bench.models.precision import Precision, device
from dadpo_bench.models.stream import Branching, Stream, batches_by_tokens, hidden_states, longest_sequence, streaming


class Total(NamedTuple):
    """Summed nats and the tokens they were summed over."""

    nats: float
    tokens: int


@torch.no_grad()
def kl_divergence(p: Any, q: Any, samples: Sequence[tuple[Branching, Branching]], precision: Precision) -> Total:
    """KL(p‖q) on samples drawn from p: at each response position the exact sum over the shared vocabulary.

    A sample is the same continuations behind the prompt as p and as q render it.
    """
    nats, tokens = 0.0, 0
    heads = (Head(p), Head(q))
    shared = min(head.weight.shape[0] for head in heads)
    rows = max(1, heads[0].rows // 4)
    longest = [longest_sequence(sample[side] for sample in samples) for side in (0, 1)]
    with precision.autocast(), streaming(p, longest[0]), streaming(q, longest[1]):
        for batch in batches_by_tokens([first for first, _ in samples], SCORING_TOKENS):
            streams = [Stream.pack([samples[i][side] for i in batch], device()) for side in (0, 1)]
            states = [hidden_states(model, stream) for model, stream in zip((p, q), streams, strict=True)]
            targets = streams[0].targets
            for start in range(0, len(targets), rows):
                log_p, log_q = (
                    head.logits(hidden[start : start + rows])[:, :shared].log_softmax(-1)
                    for head, hidden in zip(heads, states, strict=True)
                )
                nats += float((log_p.exp() * (log_p - log_q)).sum())
            tokens += len(targets)
    return Total(nats, tokens)
