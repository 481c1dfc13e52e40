"""Divergences between next-token distributions, over a whole vocabulary or over a few tokens and the rest as one."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl"]

NO_MASS = -1e30
"""Log-prob of nothing: finite, so that an empty bucket adds 0 · 0 to a divergence and not 0 · (∞ − ∞)."""


def divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    kind: Kind,
    *,
    temperature: float = 1.0,
    beta: float = 0.5,
    alpha: float = 0.1,
) -> Tensor:
    """(T, V) student and teacher logits → (T,) divergence in nats, without a T² factor; kinds as of `between`."""
    student = (student_logits / temperature).log_softmax(-1)
    teacher = (teacher_logits / temperature).log_softmax(-1)
    return between(student, teacher, kind, beta=beta, alpha=alpha)


def between(student: Tensor, teacher: Tensor, kind: Kind, *, beta: float = 0.5, alpha: float = 0.1) -> Tensor:
    """(T, C) log-probs of the same C classes → (T,) divergence in nats.

    `forward_kl` KL(teacher‖student); `reverse_kl` KL(student‖teacher); `jsd` β·KL(teacher‖M) +
    (1−β)·KL(student‖M), M = β·teacher + (1−β)·student (Agarwal et al. 2024); `skew_forward_kl`
    KL(teacher‖α·teacher + (1−α)·student), `skew_reverse_kl` with the two exchanged (Ko et al. 2024).
    """

    def kl(p: Tensor, q: Tensor) -> Tensor:
        return (p.exp() * (p - q)).sum(-1)

    def mixed(p: Tensor, q: Tensor, share: float) -> Tensor:
        return torch.logaddexp(p + math.log(share), q + math.log1p(-share))

    match kind:
        case "forward_kl":
            return kl(teacher, student)
        case "reverse_kl":
            return kl(student, teacher)
        case "jsd":
            middle = mixed(teacher, student, beta)
            return beta * kl(teacher, middle) + (1 - beta) * kl(student, middle)
        case "skew_forward_kl":
            return kl(teacher, mixed(teacher, student, alpha))
        case "skew_reverse_kl":
            return kl(student, mixed(student, teacher, alpha))


def buckets(logits: Tensor, ids: Tensor) -> Tensor:
    """(T, V) logits, (T, k) token ids → (T, k+1) log-probs: of these tokens and, last, of all others together.

    Nothing is renormalised, so every divergence here is a lower bound of that over the whole vocabulary (data
    processing) and equal to it where k = V. The tail is summed over the others themselves: as log(1 − Σp) it
    would be rounding error, and its gradient 1/(1 − Σp) unbounded, wherever the k tokens hold nearly all mass.
    """
    others = logits.scatter(-1, ids, NO_MASS).logsumexp(-1, keepdim=True)
    return torch.cat((logits.gather(-1, ids), others), -1).log_softmax(-1)
