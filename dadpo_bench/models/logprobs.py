"""From hidden states to token log-probs without ever holding the logits of a whole batch.

The head runs piece by piece and is recomputed in the backward pass: beyond its weight and gradient, its memory is a
small multiple of `CHUNK_BYTES`, whatever the batch and the vocabulary.
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
    """(R, H) hidden, (V, H) weight, (R,) targets → (R,) fp32 log-probs; logits are recomputed backward.

    Slice by slice of the vocabulary with all rows at once: a slice of the weight is read, and one of its gradient
    written, whole and once, so neither is ever held in a second format.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, compute: torch.dtype) -> Tensor:
        states = hidden.to(compute)
        norms = torch.full((len(hidden),), -torch.inf, device=hidden.device)
        chosen = torch.empty_like(norms)
        for piece in _slices(weight, len(hidden)):
            logits = (states @ weight[piece].to(compute).T).float()
            rows, columns = _within(targets, piece)
            chosen[rows] = logits[rows, columns]
            norms = torch.logaddexp(norms, logits.logsumexp(-1))
        ctx.save_for_backward(hidden, weight, targets, norms)
        ctx.compute = compute
        return chosen - norms

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, norms = ctx.saved_tensors
        grad, states = grads[0][:, None], hidden.to(ctx.compute)
        grad_hidden = torch.zeros(hidden.shape, device=hidden.device)
        grad_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        for piece in _slices(weight, len(hidden)):
            low = weight[piece].to(ctx.compute)
            logits = (states @ low.T).float()
            delta = logits.sub_(norms[:, None]).exp_().neg_()
            delta[_within(targets, piece)] += 1
            delta = delta.mul_(grad).to(ctx.compute)
            grad_hidden += delta @ low
            if grad_weight is not None:
                grad_weight[piece] = delta.T @ states
        return grad_hidden.to(hidden.dtype), grad_weight, None, None


def _slices(weight: Tensor, rows: int) -> Iterator[slice]:
    """Of the vocabulary, so that `rows` logits of a slice take `CHUNK_BYTES` in fp32."""
    return _chunks(len(weight), max(256, CHUNK_BYTES // (4 * max(1, rows))))


def _within(targets: Tensor, piece: slice) -> tuple[Tensor, Tensor]:
    """Rows whose target lies in a slice of the vocabulary, and where in it."""
    (rows,) = torch.nonzero((targets >= piece.start) & (targets < piece.stop), as_tuple=True)
    return rows, targets[rows] - piece.start


def _chunks(total: int, rows: int) -> Iterator[slice]:
    return (slice(start, start + rows) for start in range(0, total, rows))


def token_log_probs(head: Head, hidden: Tensor, stream: Stream, compute: torch.dtype) -> Tensor:
    """(R, H) hidden states of the stream's targets → (R,) fp32 log-probs, differentiable."""
    if head.softcap is None:
        result: Tensor = _TokenLogProbs.apply(hidden, head.weight, stream.targets, compute)  # type: ignore[no-untyped-call]
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
