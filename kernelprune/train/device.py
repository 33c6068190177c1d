"""Where a training runs: the CPU or a GPU, and whether that is fast in bfloat16."""

from __future__ import annotations

import torch

from kernelprune.errors import DeviceError
from kernelprune.prune.distributed import local_rank, world_size


def pick_device(name: str) -> torch.device:
    """``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"auto"`` (a GPU if torch has one) as a device.

    Under ``torchrun`` every process takes the GPU of its local rank.

    Raises:
        DeviceError: No such device here, or one GPU for several processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device {name!r}: must be auto, cpu, cuda or cuda:NUMBER") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise DeviceError(f"device {name!r}: must be auto, cpu, cuda or cuda:NUMBER")
    if not torch.cuda.is_available():
        raise DeviceError(f"device {name!r}: torch finds no GPU here; device='cpu' does without")
    if world_size() > 1 and device.index is not None:
        raise DeviceError(f"device {name!r}: every process needs its own GPU; say 'cuda'")
    index = local_rank() if device.index is None else device.index
    there = torch.cuda.device_count()
    if index >= there:
        raise DeviceError(f"device {name!r}: GPU number {index} is wanted, {there} are there")
    return torch.device("cuda", index)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; elsewhere it is slow emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            flags = next((line for line in stream if line.startswith(("flags", "Features"))), "")
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.split()))
