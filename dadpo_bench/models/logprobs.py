"""From hidden states to token log-probs without ever holding the logits of a whole batch.

The head runs chunk by chunk and is recomputed in the backward pass: beyond its weight and gradient, its
memory is a constant (`CHUNK_BYTES`), whatever the batch and the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dadpo_bench.models.precision import Precision, device
from dadpo_bench.models.stream import Branching, Stream, batches_by_tokens, hidden_states, longest_sequence, streaming
from dadpo_bench.types import SequenceLogProb

SCORER_VERSION = 2
"""Part of every signal's key: raise it when a change here moves log-probs."""

CHUNK_BYTES = 128 * 2**20
"""fp32 logits held at once."""

SCORING_TOKENS = 2048
"""Unique tokens of one forward pass while scoring."""


class Head:
    """The output projection of a causal model: weight (V, H), bias, logit scale and soft-cap."""

    def __init__(self, model: Any) -> None:
        output = model.get_output_embeddings()
        self.weight: Tensor = output.weight
        if getattr(output, "bias", None) is not None:
            raise RuntimeError(f"{type(model).__name__}: an output projection with a bias is not supported")
        config = model.config
        for name in ("logit_scale", "logits_scaling"):
            if getattr(config, name, 1) not in (None, 1, 1.0):
                raise RuntimeError(f"{type(model).__name__}: config.{name} is not supported by the chunked head")
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.rows = max(1, CHUNK_BYTES // (4 * self.weight.shape[0]))

    def logits(self, hidden: Tensor) -> Tensor:
        """(r, H) → (r, V) in fp32."""
        logits = (hidden.to(self.weight.dtype) @ self.weight.T).float()
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap


class _TokenLogProbs(torch.autograd.Function):
    """(R, H) hidden, (V, H) weight, (R,) targets → (R,) log-probs; logits are recomputed backward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, rows: int, compute: torch.dtype) -> Tensor:
        low = weight.to(compute)
        log_probs = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        norms = torch.empty_like(log_probs)
        for chunk in _chunks(hidden.shape[0], rows):
            logits = (hidden[chunk].to(compute) @ low.T).float()
            norms[chunk] = torch.logsumexp(logits, -1)
            log_probs[chunk] = logits.gather(1, targets[chunk, None])[:, 0] - norms[chunk]
        ctx.save_for_backward(hidden, weight, targets, norms)
        ctx.rows, ctx.compute = rows, compute
        return log_probs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        hidden, weight, targets, norms = ctx.saved_tensors
        low = weight.to(ctx.compute)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for chunk in _chunks(hidden.shape[0], ctx.rows):
            states = hidden[chunk].to(ctx.compute)
            delta = torch.exp((states @ low.T).float() - norms[chunk, None]).neg_()
            delta[torch.arange(delta.shape[0], device=delta.device), targets[chunk]] += 1
            delta = (delta * grad[chunk, None]).to(ctx.compute)
            grad_hidden[chunk] = (delta @ low).to(hidden.dtype)
            if grad_weight is not None:
                grad_weight += delta.T @ states
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None


def _chunks(total: int, rows: int) -> Iterator[slice]:
    return (slice(start, start + rows) for start in range(0, total, rows))


def token_log_probs(head: Head, hidden: Tensor, stream: Stream, compute: torch.dtype) -> Tensor:
    """(R, H) hidden states of the stream's targets → (R,) fp32 log-probs, differentiable."""
    if head.softcap is None:
        result: Tensor = _TokenLogProbs.apply(hidden, head.weight, stream.targets, head.rows, compute)  # type: ignore[no-untyped-call]
        return result

    def of_chunk(states: Tensor, targets: Tensor) -> Tensor:
        return head.logits(states).log_softmax(-1).gather(1, targets[:, None])[:, 0]

    return by_chunk(of_chunk, head.rows, hidden, stream.targets)


def by_chunk(function: Callable[..., Tensor], rows: int, *tensors: Tensor) -> Tensor:
    """`function` over row chunks of the tensors, each chunk recomputed backward; results concatenated."""
    pieces = [
        checkpoint(function, *(t[chunk] for t in tensors), use_reentrant=False)
        for chunk in _chunks(tensors[0].shape[0], rows)
    ]
    return torch.cat(pieces)


def sequence_log_probs(
    model: Any,
    branchings: Sequence[Branching],
    precision: Precision,
    progress: Callable[[int], None] = lambda tokens: None,
) -> list[list[SequenceLogProb]]:
    """Score every continuation given its prompt, in batches of `SCORING_TOKENS` unique tokens.

    Returns one list a branching with one signal a continuation. `progress` is told the tokens of each batch.
    """
    per_token = token_scores(model, branchings, precision, progress)
    return [[SequenceLogProb(sum(scores), len(scores)) for scores in row] for row in per_token]


@torch.no_grad()
def token_scores(
    model: Any,
    branchings: Sequence[Branching],
    precision: Precision,
    progress: Callable[[int], None] = lambda tokens: None,
) -> list[list[list[float]]]:
    """Log-prob of every token of every continuation: [branching][continuation][token]."""
    results: list[list[list[float]]] = []
    with precision.autocast(), streaming(model, longest_sequence(branchings)):
        for batch in batches_by_tokens(branchings, SCORING_TOKENS):
            chosen = [branchings[i] for i in batch]
            stream = Stream.pack(chosen, device())
            hidden = hidden_states(model, stream)
            values = iter(token_log_probs(Head(model), hidden, stream, precision.compute).tolist())
            for branching in chosen:
                results.append([[next(values) for _ in y] for y in branching.continuations])
            progress(stream.input_ids.shape[1])
    return results
