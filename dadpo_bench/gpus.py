"""GPUs that a recipe can be planned for, by their vendor's figures. Importing it imports no torch."""

from __future__ import annotations

from typing import NamedTuple

from dadpo_bench.errors import UserError
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
        _gpu("h200-141gb", 141, 989.4, 4800, "NVIDIA H200 Tensor Core GPU datasheet, SXM"),
        _gpu("h100-80gb", 80, 989.4, 3350, "NVIDIA H100 Tensor Core GPU datasheet, SXM"),
        _gpu("a100-80gb", 80, 312, 2039, "NVIDIA A100 Tensor Core GPU datasheet, 80 GB SXM"),
        _gpu("a100-40gb", 40, 312, 1555, "NVIDIA A100 Tensor Core GPU datasheet, 40 GB"),
        _gpu("l40s-48gb", 48, 362.05, 864, "NVIDIA L40S datasheet"),
        _gpu("rtx4090-24gb", 24, 165.2, 1008, "NVIDIA Ada GPU architecture whitepaper, GeForce RTX 4090"),
    )
}


def check_gpu(name: str | None) -> None:
    """Raises `UserError` for what is neither a GPU of the table nor this machine: `cpu`, or none."""
    if name not in (None, CPU, *GPUS):
        raise UserError(unknown("gpu", str(name), [CPU, *GPUS]))
