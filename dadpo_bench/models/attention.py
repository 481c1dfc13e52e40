"""Attention over a stream, segment by segment: prompt + y₁ causal, queries of y₂ over prompt + y₂ keys.

`segment_attention` has the signature of transformers' `AttentionInterface`, so any model that takes its
attention from there reads streams.
"""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

DENSE_BYTES = 64 * 2**20
"""Attention weights that `_Dense` may hold at once; longer segments go through torch's own kernel."""


class StreamError(RuntimeError):
    """This model's attention cannot be computed over a stream."""


class Segment(NamedTuple):
    """Stream offsets: prompt [start, fork), continuations [fork, ends[0]), [ends[0], ends[1]), …"""

    start: int
    fork: int
    ends: tuple[int, ...]


class Visible:
    """Which keys the queries of a piece see: (Q, K), the last query all of them, the one before one less, …"""

    def __init__(self, queries: int, keys: int, device: torch.device) -> None:
        self.causal = queries == keys
        self.shape = (queries, keys)
        self._device = device

    @cached_property
    def mask(self) -> Tensor:
        """(Q, K), true where a key is seen."""
        queries, keys = self.shape
        return torch.ones(queries, keys, dtype=torch.bool, device=self._device).tril(keys - queries)

    @cached_property
    def bias(self) -> Tensor:
        """(Q, K) in bf16, −inf where a key is not seen."""
        return torch.zeros(self.shape, dtype=torch.bfloat16, device=self._device).masked_fill(~self.mask, -torch.inf)


class Layout:
    """The segments of a stream with what every layer needs of them, made once."""

    def __init__(self, segments: tuple[Segment, ...], device: torch.device) -> None:
        self.segments = segments
        self.pieces = tuple(_pieces(segments, device))

    @property
    def visible_keys(self) -> int:
        """Keys that all queries together see."""
        return sum(q * k - q * (q - 1) // 2 for q, k in (visible.shape for *_, visible in self.pieces))


Piece = tuple[slice, tuple[slice, ...], Visible]
"""Queries' place in the stream, keys' places, and which are seen."""


def _pieces(segments: tuple[Segment, ...], device: torch.device) -> list[Piece]:
    pieces: list[Piece] = []
    for start, fork, ends in segments:
        pieces.append(
            (slice(start, ends[0]), (slice(start, ends[0]),), Visible(ends[0] - start, ends[0] - start, device))
        )
        for begin, end in itertools.pairwise(ends):
            visible = Visible(end - begin, fork - start + end - begin, device)
            pieces.append((slice(begin, end), (slice(start, fork), slice(begin, end)), visible))
    return pieces


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over a stream. query (1, H, N, D), key and value (1, G, N, D) → (1, N, H, D)."""
    if layout is None:
        raise StreamError("it drops arguments of the attention function")
    if softcap is not None:
        raise StreamError("its attention is soft-capped")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)

    def attend(piece: Piece) -> Tensor:
        queries, places, visible = piece
        q = query[:, :, queries]
        k, v = (_at(side, places) for side in (key, value))
        if _dense_is_faster(q, k) and not dropout:
            return _Dense.apply(q[0], k[0], v[0], visible.bias, scale)[None]  # type: ignore[no-any-return, no-untyped-call]
        mask = None if visible.causal else visible.mask
        grouped = key.shape[1] != query.shape[1]
        return F.scaled_dot_product_attention(
            q, k, v, mask, dropout, is_causal=visible.causal, scale=scale, enable_gqa=grouped
        )

    return torch.cat([attend(piece) for piece in layout.pieces], 2).transpose(1, 2), None


def _at(tensor: Tensor, places: tuple[slice, ...]) -> Tensor:
    pieces = [tensor[:, :, place] for place in places]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)


def _dense_is_faster(q: Tensor, k: Tensor) -> bool:
    """torch's bf16 kernel for the CPU is two to three times slower than four products at chat lengths."""
    dense = 2 * q.shape[1] * q.shape[2] * k.shape[2]
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and dense <= DENSE_BYTES


class _Dense(torch.autograd.Function):
    """(H, Q, D) queries, (G, K, D) keys and values, (Q, K) bias → (H, Q, D); weights are recomputed backward.

    The H/G query heads of a key-value head are rows of one product.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
        rows = q.reshape(len(k), -1, q.shape[-1])
        ctx.save_for_backward(rows, k, v, bias)
        ctx.scale, ctx.shape = scale, q.shape
        return (_weights(rows, k, bias, scale) @ v).view(q.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, k, v, bias = ctx.saved_tensors
        grad = grads[0].reshape(rows.shape)
        weights = _weights(rows, k, bias, ctx.scale)
        grad_v = weights.mT @ grad
        scores = torch._softmax_backward_data(grad @ v.mT, weights, -1, weights.dtype).mul_(ctx.scale)
        return (scores @ k).view(ctx.shape), scores.mT @ rows, grad_v, None, None


def _weights(rows: Tensor, k: Tensor, bias: Tensor, scale: float) -> Tensor:
    """(G, Q·H/G, K) softmax, computed in fp32 from scores in the format of `rows`."""
    repeated = bias.repeat(rows.shape[1] // len(bias), 1)
    return torch.baddbmm(repeated, rows, k.mT, alpha=scale).softmax(-1)
