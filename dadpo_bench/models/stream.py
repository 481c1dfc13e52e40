"""Batches as one padding-free stream of tokens, prompts shared, attention segment by segment.

A `Branching` is a prompt with one or more continuations. The stream lays out [prompt | y₁ | y₂ | …] after
one another; positions of every continuation restart behind the prompt, so a prompt is computed once and
each linear layer sees exactly the unique tokens. Attention runs through a function registered with
transformers' `AttentionInterface`: prompt + y₁ causal, queries of y₂ over prompt + y₂ keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dadpo_bench.models.attention import Layout, Segment, segment_attention

IMPLEMENTATION = "dadpo_bench_stream"


@dataclass(frozen=True)
class Branching:
    """Token ids of one prompt and of the continuations that share it."""

    prompt: Sequence[int]
    continuations: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        if not self.prompt or not all(self.continuations) or not self.continuations:
            raise ValueError("a branching needs a prompt and continuations of at least one token each")

    @property
    def tokens(self) -> int:
        """Unique tokens, i.e. those the model computes."""
        return len(self.prompt) + sum(map(len, self.continuations))


@dataclass(frozen=True)
class Stream:
    """What a model is given, and where the predictions of response tokens are found. N tokens, R targets."""

    input_ids: Tensor
    """(1, N)"""
    position_ids: Tensor
    """(1, N)"""
    layout: Layout
    sources: Tensor
    """(R,) stream offsets whose hidden state predicts a response token."""
    targets: Tensor
    """(R,) the response tokens."""
    owners: Tensor
    """(R,) number of the continuation, in order, that each target belongs to."""
    continuations: int

    @classmethod
    def pack(cls, branchings: Sequence[Branching], device: torch.device) -> Stream:
        """Lay the branchings out one after another."""
        ids: list[int] = []
        positions: list[int] = []
        segments: list[Segment] = []
        sources: list[int] = []
        targets: list[int] = []
        owners: list[int] = []
        count = 0
        for branching in branchings:
            start, width = len(ids), len(branching.prompt)
            ids += branching.prompt
            positions += range(width)
            ends = []
            for continuation in branching.continuations:
                first = len(ids)
                ids += continuation
                positions += range(width, width + len(continuation))
                sources += [start + width - 1, *range(first, len(ids) - 1)]
                targets += continuation
                owners += [count] * len(continuation)
                ends.append(len(ids))
                count += 1
            segments.append(Segment(start, start + width, tuple(ends)))

        def tensor(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        return cls(
            tensor(ids)[None],
            tensor(positions)[None],
            Layout(tuple(segments), device),
            tensor(sources),
            tensor(targets),
            tensor(owners),
            count,
        )

    def sum_by_continuation(self, values: Tensor) -> Tensor:
        """(R,) values → (continuations,) sums in fp32."""
        total = torch.zeros(self.continuations, dtype=torch.float32, device=values.device)
        return total.index_add(0, self.owners, values.float())


@contextmanager
def streaming(model: Any) -> Iterator[None]:
    """Within, the model reads streams; afterwards its attention is what it was."""
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, segment_attention)
    before = model.config._attn_implementation
    model.set_attn_implementation(IMPLEMENTATION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def hidden_states(model: Any, stream: Stream) -> Tensor:
    """(R, hidden) last hidden states that predict the stream's targets. Use within `streaming(model)`."""
    window = getattr(model.config, "sliding_window", None)
    layers = getattr(model.config, "layer_types", None)
    slides = layers is None or "sliding_attention" in layers
    longest = int(stream.position_ids.max()) + 1
    if window is not None and slides and longest > window:
        raise RuntimeError(f"a sequence of {longest} tokens is longer than the model's sliding window of {window}")
    body = model.get_decoder()
    output = body(
        input_ids=stream.input_ids,
        position_ids=stream.position_ids,
        use_cache=False,
        layout=stream.layout,
    )
    states: Tensor = output.last_hidden_state[0]
    return states[stream.sources]


def batches_by_tokens(branchings: Sequence[Branching], limit: int) -> list[list[int]]:
    """Indices of the branchings in batches of at most `limit` unique tokens (one over-long alone), in order."""
    batches: list[list[int]] = []
    room = 0
    for index, branching in enumerate(branchings):
        if branching.tokens > room:
            batches.append([])
            room = limit
        batches[-1].append(index)
        room -= branching.tokens
    return batches
