"""Which number format this machine computes in, probed once and stored with every run."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import NamedTuple

import torch

from dadpo_bench.errors import UserError

_ASKED = "DADPO_BENCH_DTYPE"


@cache
def device() -> torch.device:
    """The accelerator torch sees, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


@cache
def compute_dtype() -> torch.dtype:
    """bf16 where the processor has it natively, else fp32: emulated bf16 is some twenty times slower.

    `DADPO_BENCH_DTYPE=float32|bfloat16` overrides the probe.
    """
    asked = os.environ.get(_ASKED)
    if asked:
        if asked not in ("float32", "bfloat16"):
            raise UserError(f"DADPO_BENCH_DTYPE={asked}: choose float32 or bfloat16")
        return torch.float32 if asked == "float32" else torch.bfloat16
    if device().type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    native = device().type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def compute_in(dtype: str) -> None:
    """From here on this process, and those that it starts, compute in that format: results are shared with others."""
    os.environ[_ASKED] = dtype
    compute_dtype.cache_clear()


class Precision(NamedTuple):
    """Format of the weights in memory and of the arithmetic; part of the key of every signal."""

    weights: torch.dtype
    compute: torch.dtype

    def __str__(self) -> str:
        return "/".join(str(part).removeprefix("torch.") for part in self)

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in `compute` from `weights`; nothing to do where the two agree."""
        if self.weights == self.compute:
            return nullcontext()
        return torch.autocast(device().type, dtype=self.compute)


def training() -> Precision:
    """fp32 master weights, native arithmetic: the policy, and every signal of the reference."""
    return Precision(torch.float32, compute_dtype())


def frozen() -> Precision:
    """Weights in the compute format: models that only answer, judge or teach."""
    return Precision(compute_dtype(), compute_dtype())
