"""The inputs of a run on the CPU as arrays that the core can read where they lie."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from kernelprune.errors import DeviceError, ShapeError
from kernelprune.text import read_json


def inputs_of_bytes(model: bytes) -> tuple[bool, ...]:
    """Of each input of a model file that loads: may it be given as bytes (dtype "u8")?"""
    end = 8 + int.from_bytes(model[:8], "little")
    if model.find(b"u8", 8, end) < 0:  # headers are large, and few have any
        return ()
    graph = read_json(read_json(model[8:end])["__metadata__"]["graph"])
    return tuple(value.get("dtype") == "u8" for value in graph["inputs"])


def to_arrays(
    inputs: tuple[Any, ...], half: bool = False, of_bytes: Sequence[bool] = ()
) -> tuple[list[np.ndarray], bool]:
    """Contiguous float32 numpy views (or copies) of the inputs; whether any was a torch tensor.

    If ``half``, all of them may be float16. Those that ``of_bytes`` names may be uint8, whose
    values become float32.

    Raises:
        ShapeError: One is no array or tensor, or of another type.
        DeviceError: One lies on another device.
    """
    arrays = []
    torch_in = False
    # Without importing torch: a tensor can only come from a torch that is already loaded.
    torch = sys.modules.get("torch")
    for place, value in enumerate(inputs):
        takes_bytes = place < len(of_bytes) and of_bytes[place]
        if torch is not None and isinstance(value, torch.Tensor):
            torch_in = True
            value = _from_torch(torch, value, half, takes_bytes)
        if not isinstance(value, np.ndarray):
            raise ShapeError(f"inputs must be numpy arrays or torch tensors, got {type(value)}")
        if takes_bytes and value.dtype == np.uint8 and not isinstance(value, np.ma.MaskedArray):
            value = value.astype(np.float32)
        if value.dtype != np.float32 and not (half and value.dtype == np.float16):
            raise ShapeError(f"inputs must be float32, got {value.dtype}; use .astype('float32')")
        if isinstance(value, np.ma.MaskedArray):
            raise ShapeError("inputs must have no mask; use .filled()")
        array = np.ascontiguousarray(value)
        arrays.append(array if array.flags.aligned else array.copy())
    if half and len({array.dtype for array in arrays}) > 1:
        raise ShapeError("inputs must be all float32 or all float16")
    return arrays, torch_in


def into_arrays(
    out: Any, shapes: Sequence[tuple[int, ...]], dtype: type, inputs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """What of a caller's takes the outputs, as arrays of ``dtype`` over its memory: an array or
    CPU tensor for each of ``shapes``, alone where there is one.

    Raises:
        ShapeError: Their number, a shape, type or layout is another; one cannot be written, or lies
            over an input or another output.
    """
    given = list(out) if isinstance(out, (tuple, list)) else [out]
    if len(given) != len(shapes):
        raise ShapeError(f"out has {len(given)} arrays, the model {len(shapes)} outputs")
    torch = sys.modules.get("torch")
    found: list[np.ndarray] = []
    for value, shape in zip(given, shapes, strict=True):
        if torch is not None and isinstance(value, torch.Tensor):
            if value.device.type != "cpu" or value.layout != torch.strided or value.requires_grad:
                raise ShapeError("out must be dense CPU tensors without gradients, or arrays")
            value = value.numpy()
        if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
            raise ShapeError(f"out must be numpy arrays or torch tensors, got {type(value)}")
        if value.shape != shape or value.dtype != dtype:
            got = f"{value.dtype} {list(value.shape)}"
            raise ShapeError(f"out must be {np.dtype(dtype)} {list(shape)}, got {got}")
        if not (value.flags.c_contiguous and value.flags.writeable and value.flags.aligned):
            raise ShapeError("out must be contiguous, aligned, and no view that is read alone")
        if any(np.may_share_memory(value, other) for other in (*inputs, *found)):
            raise ShapeError("out shares memory with an input or with another output")
        found.append(value)
    return found


def are_halves(arrays: list[np.ndarray]) -> bool:
    """Whether all are float16, and there are any."""
    return bool(arrays) and all(array.dtype == np.float16 for array in arrays)


def _from_torch(torch: Any, value: Any, half: bool, takes_bytes: bool) -> np.ndarray:
    if value.device.type == "meta":
        raise DeviceError("the input is a meta tensor, which has no values")
    if value.device.type != "cpu":
        raise DeviceError(f"the input lies on {value.device}; move it with .cpu()")
    if value.layout != torch.strided or value.is_nested:
        kind = "nested" if value.is_nested else value.layout
        raise ShapeError(f"inputs must be dense tensors, got {kind}; use .to_dense()")
    taken = {torch.float32} | ({torch.float16} if half else set())
    taken |= {torch.uint8} if takes_bytes else set()
    if value.dtype not in taken:
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
