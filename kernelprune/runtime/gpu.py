"""Tensors that lie on a GPU, in and out of an engine without a way through the host.

Three kinds are understood: torch tensors, whatever has ``__cuda_array_interface__`` (CuPy, Numba)
and whatever has ``__dlpack__`` (JAX and others).
"""

from __future__ import annotations

import ctypes
import math
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kernelprune.errors import DeviceError, ShapeError

_DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged
_LEGACY_STREAM = 1  # the default stream, in both protocols
_NUMPY_NAMES = {"<f4": "float32", "<f2": "float16"}


@dataclass(frozen=True)
class GpuTensor:
    """A tensor ``[batch, ...]`` on a GPU, whoever made it.

    Attributes:
        address: Of its first element; elements are contiguous, the last dimension first.
        dtype: Such as ``"float32"``.
        index: Number of the GPU; None if the protocol does not say.
        stream: Handle of the stream whose work makes it; None if it is there already.
        owner: Keeps the memory.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str
    index: int | None
    stream: int | None
    owner: Any


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_index", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class DeviceArray:
    """An output on the GPU, for inputs that were no torch tensors.

    ``cupy.asarray``, ``torch.as_tensor(..., device="cuda")`` and others take it without a copy, by
    ``__cuda_array_interface__``. It is complete when :meth:`kernelprune.Engine.run` returns.
    """

    def __init__(self, core: Any, shape: Sequence[int], dtype: str) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self.nbytes = math.prod(self.shape) * (2 if dtype == "float16" else 4)
        self.address: int = core.allocate(max(self.nbytes, 1))
        weakref.finalize(self, core.release, self.address)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": "<f2" if self.dtype == "float16" else "<f4",
            "data": (self.address, False),
            "version": 3,
            "strides": None,
            "stream": None,
        }

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"


def is_gpu_tensor(value: Any) -> bool:
    """Whether a value lies on a CUDA device, by any of the protocols; torch need not be there."""
    if _is_torch(value):
        return value.device.type == "cuda"
    if hasattr(value, "__cuda_array_interface__"):
        return True
    device = getattr(value, "__dlpack_device__", None)
    return device is not None and int(device()[0]) in _DLPACK_CUDA


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _from_torch(value: Any) -> GpuTensor:
    import torch

    held = value.detach().contiguous()
    stream = torch.cuda.current_stream(held.device).cuda_stream if held.is_cuda else 0
    dtype = str(held.dtype).removeprefix("torch.")
    index = held.device.index if held.is_cuda else None
    return GpuTensor(held.data_ptr(), tuple(held.shape), dtype, index, stream, held)


def _check_contiguous(name: str, shape: tuple[int, ...], strides: Sequence[int]) -> None:
    """Strides in elements."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != expected:
            raise ShapeError(f"input {name!r} must be contiguous, got strides {tuple(strides)}")
        expected *= size


def _from_array_interface(value: Any, name: str) -> GpuTensor:
    interface = value.__cuda_array_interface__
    shape = tuple(interface["shape"])
    dtype = _NUMPY_NAMES.get(interface["typestr"], interface["typestr"])
    strides = interface.get("strides")
    if strides is not None:
        size = int(interface["typestr"][2:])
        _check_contiguous(name, shape, [stride // size for stride in strides])
    device = getattr(value, "device", None)
    index = getattr(device, "id", None)  # CuPy says it; the protocol does not
    stream = interface.get("stream")
    return GpuTensor(interface["data"][0], shape, dtype, index, stream, value)


def _from_dlpack(value: Any, name: str) -> GpuTensor:
    _, index = value.__dlpack_device__()
    # The default stream will wait for the data, and the engine for the default stream.
    capsule = value.__dlpack__(stream=_LEGACY_STREAM)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _DLTensor.from_address(pointer(capsule, b"dltensor"))
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.strides:
        _check_contiguous(name, shape, tensor.strides[: tensor.ndim])
    code = {0: "int", 1: "uint", 2: "float", 4: "bfloat"}.get(tensor.code, "unknown")
    lanes = f"x{tensor.lanes}" if tensor.lanes != 1 else ""
    address = (tensor.data or 0) + tensor.byte_offset
    # The capsule was not renamed, so that it frees the tensor itself when it goes.
    return GpuTensor(
        address, shape, f"{code}{tensor.bits}{lanes}", int(index), _LEGACY_STREAM, (value, capsule)
    )


def check_tensors(
    inputs: tuple[Any, ...], expected: list[Any], index: int, half: bool = False
) -> list[GpuTensor]:
    """Checks tensors against the inputs of a model and the GPU of its engine.

    Args:
        inputs: What the user gave.
        expected: Name and per-image shape of each input.
        index: Number of the engine's GPU.
        half: Whether float16 will do too.

    Returns:
        The tensors, of one batch size and one type.

    Raises:
        ShapeError: Wrong number, shape, type or strides of inputs.
        DeviceError: A tensor lies elsewhere.
    """
    if len(inputs) != len(expected):
        raise ShapeError(f"the model has {len(expected)} inputs, got {len(inputs)}")
    tensors: list[GpuTensor] = []
    for value, (name, shape) in zip(inputs, expected, strict=True):
        if not is_gpu_tensor(value):
            place = getattr(value, "device", type(value))
            raise DeviceError(f"input {name!r} must lie on cuda:{index} as the others, got {place}")
        if _is_torch(value):
            tensor = _from_torch(value)
        elif hasattr(value, "__cuda_array_interface__"):
            tensor = _from_array_interface(value, name)
        else:
            tensor = _from_dlpack(value, name)
        if tensor.index not in (None, index):
            raise DeviceError(
                f"input {name!r} must lie on cuda:{index} as the others, got cuda:{tensor.index}"
            )
        types = ("float32", "float16") if half else ("float32",)
        if tensor.dtype not in types:
            raise ShapeError(f"inputs must be {' or '.join(types)}, got {tensor.dtype}")
        if tensor.dtype != (tensors or [tensor])[0].dtype:
            raise ShapeError("inputs must be all float32 or all float16")
        got = tensor.shape
        if got[1:] != tuple(shape) or not got or got[0] != (tensors or [tensor])[0].shape[0]:
            raise ShapeError(_shape_message(name, shape, got))
        tensors.append(tensor)
    return tensors


def _shape_message(name: str, shape: tuple[int, ...], got: tuple[int, ...]) -> str:
    wanted, found = ",".join(map(str, ("batch", *shape))), ",".join(map(str, got))
    return f"input {name!r} must have the shape [{wanted}], got [{found}]"


def run_tensors(core: Any, tensors: list[GpuTensor]) -> list[Any]:
    """Runs checked tensors where they lie.

    torch tensors in, torch tensors out, on torch's current stream: nobody waits. Else
    :class:`DeviceArray`, complete on return.
    """
    batch, dtype = tensors[0].shape[0], tensors[0].dtype
    as_torch = all(_is_torch(tensor.owner) for tensor in tensors)
    shapes = [(batch, *info.shape) for info in core.outputs]
    outputs: list[Any]
    if as_torch:
        import torch

        place = tensors[0].owner.device
        outputs = [torch.empty(s, dtype=getattr(torch, dtype), device=place) for s in shapes]
        addresses = [output.data_ptr() for output in outputs]
    else:
        outputs = [DeviceArray(core, shape, dtype) for shape in shapes]
        addresses = [output.address for output in outputs]
    core.run_pointers(
        [tensor.address for tensor in tensors],
        addresses,
        batch,
        half=dtype == "float16",
        on_device=True,
        streams=sorted({tensor.stream for tensor in tensors if tensor.stream is not None}),
        queue=as_torch,
    )
    return outputs
