"""Bytes that training, scoring, sampling and pruning hold at their peak, from a model's sizes alone.

Counted from what the code keeps: which tensors a Llama layer saves for its backward pass, how the head goes through
its chunks. `benchmarks/planning.py` compares with what a process really takes.
"""

from __future__ import annotations

from typing import NamedTuple

from dadpo_bench.models.logprobs import CHUNK_BYTES
from dadpo_bench.models.shape import Shape

MASTER = 4
"""Bytes of an fp32 number: master weights, gradients, each of AdamW's two moments, the residual stream."""


class Memory(NamedTuple):
    """Bytes at the peak, by what they are for."""

    weights: float = 0
    copies: float = 0
    """Weights in the compute format, which autocast makes and the backward pass keeps; a pruned model's slices."""
    gradients: float = 0
    optimiser: float = 0
    activations: float = 0
    cache: float = 0
    """Keys and values of what is being sampled."""
    logits: float = 0
    """The head's chunk, and what its backward pass needs beside it."""

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


def saved_activations(shape: Shape, tokens: float, compute: int, again: float = 0.0) -> float:
    """Bytes that the layers keep for the backward pass of `tokens` tokens, `compute` bytes a number.

    `again` is the share of tokens whose keys are copied: prompts, and continuations behind the first.
    """
    width, keys = shape.hidden, shape.keys
    norms = 2 * (2 * MASTER * width + MASTER)  # what is normed, the normed, its scale
    # Autocast converts a norm's fp32 output anew for each projection that reads it; in fp32 they share it.
    inputs = (3 + 2) * compute * width if compute < MASTER else 2 * MASTER * width
    attention = compute * (2 * shape.queries + 2 * keys * (1 + again))
    if compute == MASTER:
        attention += compute * shape.queries + MASTER * shape.heads  # torch's kernel keeps output and normaliser
    mlp = 4 * compute * shape.intermediate  # gate, its SiLU, up, their product
    return tokens * (shape.layers * (norms + inputs + attention + mlp) + 2 * MASTER * width)


def training(
    shape: Shape,
    tokens: float,
    targets: float,
    compute: int,
    *,
    again: float = 0.0,
    teacher: Shape | None = None,
    gpus: int = 1,
    recompute: bool = False,
    rank: int = 0,
) -> Memory:
    """A micro-batch in the middle of an optimiser step, at the start of its backward pass.

    `gpus` above 1: masters, gradients and moments are shared out, everything else is whole on each. `recompute`: a
    layer keeps its input, one at a time the rest too. `rank`: of adapters; then they alone have gradients.
    """
    autocast = compute < MASTER
    sharded, learnt = MASTER * shape.parameters / gpus, MASTER * (adapters(shape, rank) or shape.parameters) / gpus
    kept = saved_activations(shape, tokens, compute, again)
    if recompute:
        kept = kept / shape.layers + MASTER * shape.layers * tokens * shape.hidden
    hidden = MASTER * targets * shape.hidden
    if teacher is None:
        # Backward: the head's gradient before it is added; a slice's logits, and what comes of them.
        head = 0 if rank else shape.head * MASTER
        chunk = _chunk(shape, targets, CHUNK_BYTES) * (MASTER + 2 * compute)
    else:
        # The weight's copy, its gradient as it comes from the product and in fp32.
        head = shape.head * (compute * autocast + compute + MASTER)
        # Logits, goal, both log-softmaxes, probabilities, difference and product.
        chunk = _chunk(shape, targets, CHUNK_BYTES // 4) * 7 * MASTER
        hidden += compute * targets * teacher.hidden
    return Memory(
        weights=sharded + (compute * teacher.parameters if teacher else 0),
        copies=compute * autocast * shape.linear,
        gradients=learnt,
        optimiser=2 * learnt,
        activations=kept + hidden,
        logits=head + chunk,
    )


def adapters(shape: Shape, rank: int) -> int:
    """Parameters of adapters to every linear layer."""
    attention = 2 * (shape.hidden + shape.queries) + 2 * (shape.hidden + shape.keys)
    return rank * shape.layers * (attention + 3 * (shape.hidden + shape.intermediate))


def _chunk(shape: Shape, targets: float, size: int) -> float:
    """Logits held at once where a chunk of them in fp32 takes `size` bytes."""
    return min(targets * shape.vocabulary, max(size // MASTER, shape.vocabulary))


def scoring(
    shape: Shape, tokens: float, targets: float, weights: int, compute: int, beside: Shape | None = None
) -> Memory:
    """A forward pass without gradients; `weights` bytes a parameter in memory. `beside`: a second frozen model."""
    autocast = compute < weights
    return Memory(
        weights=weights * shape.parameters + (compute * beside.parameters if beside else 0),
        copies=compute * autocast * shape.linear,
        activations=_passing(shape, tokens, weights, compute),
        logits=_chunk(shape, targets, CHUNK_BYTES) * (2 * MASTER + compute),
    )


def _passing(shape: Shape, tokens: float, stream: int, compute: int) -> float:
    """Bytes of one layer while it is computed: the residual, a norm and its output, gate's SiLU, up, their product."""
    return tokens * (3 * stream * shape.hidden + 3 * compute * shape.intermediate)


def sampling(shape: Shape, rows: int, prompt: float, new: float, compute: int) -> Memory:
    """A batch of `rows` prompts at its last token; the activations are those of reading the prompts."""
    return Memory(
        weights=compute * shape.parameters,
        activations=_passing(shape, rows * prompt, compute, compute),
        cache=rows * (prompt + new) * 2 * shape.layers * shape.keys * compute,
        logits=rows * shape.vocabulary * (3 * MASTER + compute),
    )


def rollouts(
    shape: Shape,
    rows: int,
    prompt: float,
    new: float,
    compute: int,
    *,
    teacher: Shape | None = None,
    rank: int = 0,
) -> Memory:
    """As `sampling`, by a policy between its optimiser steps: gradients are freed, masters, moments, teacher stay.

    Autocast keeps a cast of every weight that has gradients until the batch is drawn, one at a time of those frozen
    under adapters. Rotary positions make the keys fp32, and the cache holds values in the keys' format.
    """
    autocast = compute < MASTER
    casts = max(shape.head, shape.hidden * shape.intermediate) if rank else shape.linear + shape.head
    return sampling(shape, rows, prompt, new, compute)._replace(
        weights=MASTER * shape.parameters + (compute * teacher.parameters if teacher else 0),
        copies=compute * autocast * casts,
        optimiser=2 * MASTER * (adapters(shape, rank) or shape.parameters),
        activations=_passing(shape, rows * prompt, MASTER, compute),
        cache=rows * (prompt + new) * 2 * shape.layers * shape.keys * MASTER,
    )


def pruning(shape: Shape, pruned: Shape, tokens: float, compute: int, *, taylor: bool) -> Memory:
    """The whole model with its gradients, then the slices of the pruned one, which itself lies in main memory."""
    autocast = compute < MASTER
    slices = MASTER * pruned.linear
    backward = compute * autocast * (shape.linear + shape.head) if taylor else 0
    return Memory(
        weights=MASTER * shape.parameters,
        copies=max(slices, backward),
        gradients=MASTER * shape.parameters * taylor,
        activations=saved_activations(shape, tokens, compute) * taylor,
        logits=tokens * shape.vocabulary * (3 * MASTER + compute) * taylor,
    )
