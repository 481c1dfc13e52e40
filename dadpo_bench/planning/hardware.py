"""What a machine has: memory, arithmetic, bandwidth. GPUs by the vendor's figures, this machine as measured."""

from __future__ import annotations

from typing import NamedTuple

import psutil
import torch

from dadpo_bench.errors import UserError
from dadpo_bench.models.flops import matmul_rate, memory_bandwidth
from dadpo_bench.models.precision import compute_dtype, device
from dadpo_bench.registry import unknown

CPU = "cpu"


class Hardware(NamedTuple):
    """One device."""

    name: str
    memory: float
    """Bytes."""
    flops: float
    """A second, dense, in the compute format."""
    bandwidth: float
    """Bytes a second."""
    compute: int
    """Bytes of a number in the compute format."""
    source: str


def _gpu(name: str, memory: int, teraflops: float, bandwidth: int, source: str) -> Hardware:
    text = f"vendor's figures, not measured here: {source}"
    return Hardware(name, memory * 1e9, teraflops * 1e12, bandwidth * 1e9, 2, text)


# Dense bf16 (half of what datasheets give "with sparsity"), products summed in fp32.
GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("h100-80gb", 80, 989.4, 3350, "NVIDIA H100 Tensor Core GPU datasheet, SXM"),
        _gpu("a100-80gb", 80, 312, 2039, "NVIDIA A100 Tensor Core GPU datasheet, 80 GB SXM"),
        _gpu("a100-40gb", 40, 312, 1555, "NVIDIA A100 Tensor Core GPU datasheet, 40 GB"),
        _gpu("l40s-48gb", 48, 362.05, 864, "NVIDIA L40S datasheet"),
        _gpu("rtx4090-24gb", 24, 165.2, 1008, "NVIDIA Ada GPU architecture whitepaper, GeForce RTX 4090"),
    )
}


def hardware_of(name: str | None) -> Hardware:
    """A GPU of the table by name; this machine's own device for `cpu` or none. Raises `UserError` for others."""
    if name in GPUS:
        return GPUS[name]
    if name not in (None, CPU):
        raise UserError(unknown("gpu", str(name), [CPU, *GPUS]))
    here = device()
    if name == CPU and here.type != CPU:
        raise UserError(f"this machine computes on {here.type}: leave out --gpu to plan for it")
    memory = (
        torch.cuda.get_device_properties(here).total_memory if here.type == "cuda" else psutil.virtual_memory().total
    )
    dtype = compute_dtype()
    text = f"measured here: a {str(dtype).removeprefix('torch.')} matrix product, a sum over memory"
    return Hardware(f"this machine ({here.type})", memory, matmul_rate(dtype), memory_bandwidth(), dtype.itemsize, text)
