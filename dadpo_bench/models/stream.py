"""Batches as one padding-free stream of tokens, prompts shared, attention segment by segment.

A `Branching` is a prompt with one or more continuations. The stream lays out [prompt | y₁ | y₂ | …] after
one another; positions of every continuation restart behind the prompt, so a prompt is computed once and
each linear layer sees exactly the unique tokens. Attention runs through a function registered with
transformers' `AttentionInterface`: prompt + y₁ causal, queries of y₂ over prompt + y₂ keys.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from dadpo_bench.models.attention import Layout, Segment, StreamError, segment_attention
from dadpo_bench.models.loading import quiet_transformers

IMPLEMENTATION = "dadpo_bench_stream"

PROBE_TOLERANCE = 0.01
"""Relative difference of a probe's hidden states in fp32, stream against rows: rounding gives 1e-4 at most, a
recurrent model that carries its state across pairs 0.44."""

_LOGGER = logging.getLogger(__name__)


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

    @property
    def tokens(self) -> int:
        """Unique tokens, i.e. those the model computes."""
        return self.input_ids.shape[1]

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with one of its continuations."""
        return int(self.position_ids.max()) + 1

    @property
    def tokens_by_continuation(self) -> Tensor:
        """(continuations,) response tokens of each."""
        return torch.bincount(self.owners, minlength=self.continuations)

    def sum_by_continuation(self, values: Tensor) -> Tensor:
        """(R,) values → (continuations,) sums in fp32."""
        total = torch.zeros(self.continuations, dtype=torch.float32, device=values.device)
        return total.index_add(0, self.owners, values.float())


_PROBE = (Branching([5, 6, 7], [[8, 9, 10], [11, 12]]), Branching([13], [[14, 15], [16]]))


@contextmanager
def streaming(model: Any, longest: int) -> Iterator[str | None]:
    """Within, `hidden_states` reads streams at once; afterwards the model's attention is what it was.

    `longest`: tokens of the longest sequence to come (`longest_sequence`). A model that cannot read a stream is
    read row by row instead: slower, never wrong. Yields the reason then, which is also logged once, else None.
    """
    before = model.get_decoder().config._attn_implementation
    reason = _beyond_window(model, longest) or _obstacle(model)
    if reason is None:
        model.set_attn_implementation(IMPLEMENTATION)
    elif _TOLD.get(model) != reason:  # a training enters here at every step
        _TOLD[model] = reason
        _LOGGER.warning("%s: %s; it is read row by row, which is slower", type(model).__name__, reason)
    try:
        yield reason
    finally:
        if reason is None:
            model.set_attn_implementation(before)


def longest_sequence(branchings: Iterable[Branching]) -> int:
    """Tokens of the longest prompt with one of its continuations."""
    return max((len(b.prompt) + max(map(len, b.continuations)) for b in branchings), default=0)


def _beyond_window(model: Any, longest: int) -> str | None:
    config = model.get_decoder().config
    window = getattr(config, "sliding_window", None)
    layers = getattr(config, "layer_types", None)
    slides = layers is None or "sliding_attention" in layers
    if window is None or not slides or longest <= window:
        return None
    return f"a sequence of {longest} tokens is longer than the sliding window of {window}"


def _obstacle(model: Any) -> str | None:
    """Why this model cannot read streams, found once a model by trying."""
    if model not in _OBSTACLES:
        _OBSTACLES[model] = _find_obstacle(model)
    return _OBSTACLES[model]


_OBSTACLES: WeakKeyDictionary[Any, str | None] = WeakKeyDictionary()
_TOLD: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


@torch.no_grad()
def _find_obstacle(model: Any) -> str | None:
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, segment_attention)
    config = model.get_decoder().config
    before, was_training = config._attn_implementation, model.training
    probe = Stream.pack(_PROBE, next(model.parameters()).device)
    model.eval()
    try:
        with _fp32(model):
            rows = hidden_states(model, probe)
            with quiet_transformers():
                model.set_attn_implementation(IMPLEMENTATION)
            if config._attn_implementation != IMPLEMENTATION:
                return "it does not take its attention from transformers' interface"
            difference = float((hidden_states(model, probe) - rows).norm() / rows.norm())
    except StreamError as error:
        return str(error)
    except RuntimeError as error:
        return f"it cannot be tried ({' '.join(str(error).split())[:120]})"
    finally:
        model.set_attn_implementation(before)
        model.train(was_training)
    if difference > PROBE_TOLERANCE:
        return f"its hidden states of a stream differ from those of single rows by {100 * difference:.0f} %"
    return None


@contextmanager
def _fp32(model: Any) -> Iterator[None]:
    """Compute in fp32 whatever the weights' format, a module's weights at a time; they are afterwards as before.

    In bf16 a trained model may answer rounding alone by hidden states that differ by half.
    """
    formats = {p: p.dtype for p in model.parameters() if p.is_floating_point() and p.itemsize < 4}

    def widen(module: torch.nn.Module, _: Any) -> None:
        for p in module.parameters(recurse=False):
            if p in formats:
                p.data = p.data.float()

    def narrow(module: torch.nn.Module, *_: Any) -> None:
        for p in module.parameters(recurse=False):
            if p in formats:
                p.data = p.data.to(formats[p])

    hooks = [h for m in model.modules() for h in (m.register_forward_pre_hook(widen), m.register_forward_hook(narrow))]
    try:
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in model.modules():
            narrow(module)


def hidden_states(model: Any, stream: Stream) -> Tensor:
    """(R, hidden) last hidden states that predict the stream's targets; at once within `streaming(model)`."""
    body = model.get_decoder()
    if body.config._attn_implementation == IMPLEMENTATION:
        output = body(
            input_ids=stream.input_ids, position_ids=stream.position_ids, use_cache=False, layout=stream.layout
        )
        states: Tensor = output.last_hidden_state[0]
        return states[stream.sources]
    rows = []
    for start, fork, ends in stream.layout.segments:
        for begin, end in itertools.pairwise((fork, *ends)):
            ids = torch.cat((stream.input_ids[:, start:fork], stream.input_ids[:, begin:end]), 1)
            rows.append(body(input_ids=ids, use_cache=False).last_hidden_state[0, fork - start - 1 : -1])
    return torch.cat(rows)


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
