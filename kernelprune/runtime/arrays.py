"""The inputs of a run on the CPU as arrays that the core can read where they lie."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from kernelprune.errors import DeviceError, ShapeError


def to_arrays(inputs: tuple[Any, ...], half: bool = False) -> tuple[list[np.ndarray], bool]:
    """Contiguous float32 numpy views (or copies) of the inputs; whether any was a torch tensor.

    If ``half``, all of them may be float16.

    Raises:
        ShapeError: One is no array or tensor, or of another type.
        DeviceError: One lies on another device.
    """
    arrays = []
    torch_in = False
    # Without importing torch: a tensor can only come from a torch that is already loaded.
    torch = sys.modules.get("torch")
    for value in inputs:
        if torch is not None and isinstance(value, torch.Tensor):
            torch_in = True
            value = _from_torch(torch, value, half)
        if not isinstance(value, np.ndarray):
            raise ShapeError(f"inputs must be numpy arrays or torch tensors, got {type(value)}")
        if value.dtype != np.float32 and not (half and value.dtype == np.float16):
            raise ShapeError(f"inputs must be float32, got {value.dtype}; use .astype('float32')")
        if isinstance(value, np.ma.MaskedArray):
            raise ShapeError("inputs must have no mask; use .filled()")
        array = np.ascontiguousarray(value)
        arrays.append(array if array.flags.aligned else array.copy())
    if half and len({array.dtype for array in arrays}) > 1:
        raise ShapeError("inputs must be all float32 or all float16")
    return arrays, torch_in


def are_halves(arrays: list[np.ndarray]) -> bool:
    """Whether all are float16, and there are any."""
    return bool(arrays) and all(array.dtype == np.float16 for array in arrays)


def _from_torch(torch: Any, value: Any, half: bool) -> np.ndarray:
    if value.device.type == "meta":
        raise DeviceError("the input is a meta tensor, which has no values")
    if value.device.type != "cpu":
        raise DeviceError(f"the input lies on {value.device}; move it with .cpu()")
    if value.layout != torch.strided or value.is_nested:
        kind = "nested" if value.is_nested else value.layout
        raise ShapeError(f"inputs must be dense tensors, got {kind}; use .to_dense()")
    if value.dtype != torch.float32 and not (half and value.dtype == torch.float16):
        raise ShapeError(f"inputs must be float32, got {value.dtype}; use .float()")
    try:
        held = value.detach().resolve_neg().contiguous()
        array = held.numpy()
    except MemoryError:
        raise
    except Exception as error:  # a tensor under a transform, a fake one, a subclass
        reason = " ".join(str(error).split())[:120]
        raise ShapeError(f"the input {type(value)} cannot be read: {reason}") from None
    if held.numel() > 0 and held.data_ptr() == 0:
        raise ShapeError("the input is a tensor whose memory has been given back")
    return array
