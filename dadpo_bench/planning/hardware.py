"""What a machine has: memory, arithmetic, bandwidth. GPUs by their vendor's figures, this machine as measured."""

from __future__ import annotations

import psutil
import torch

from dadpo_bench.errors import UserError
from dadpo_bench.gpus import CPU, GPUS, Hardware, check_gpu
from dadpo_bench.models.flops import matmul_rate, memory_bandwidth
from dadpo_bench.models.precision import compute_dtype, device


def hardware_of(name: str | None) -> Hardware:
    """A GPU of the table by name; this machine's own device for `cpu` or none. Raises `UserError` for others."""
    check_gpu(name)
    if name in GPUS:
        return GPUS[name]
    here = device()
    if name == CPU and here.type != CPU:
        raise UserError(f"this machine computes on {here.type}: leave out --gpu to plan for it")
    memory = (
        torch.cuda.get_device_properties(here).total_memory if here.type == "cuda" else psutil.virtual_memory().total
    )
    dtype = compute_dtype()
    text = f"measured here: a {str(dtype).removeprefix('torch.')} matrix product, a sum over memory"
    return Hardware(f"this machine ({here.type})", memory, matmul_rate(dtype), memory_bandwidth(), dtype.itemsize, text)
