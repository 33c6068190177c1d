"""torch tensors that lie on a GPU, in and out of an engine without a way through the host."""

from __future__ import annotations

from typing import Any

from kernelprune.errors import DeviceError, ShapeError


def is_gpu_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor on a CUDA device; torch need not be there."""
    return getattr(getattr(value, "device", None), "type", None) == "cuda"


def check_tensors(inputs: tuple[Any, ...], expected: list[Any], index: int) -> int:
    """Checks tensors against the inputs of a model and the GPU of its engine.

    Args:
        inputs: What the user gave.
        expected: Name and per-image shape of each input.
        index: Number of the engine's GPU.

    Returns:
        The batch size.

    Raises:
        ShapeError: Wrong number, shape or type of inputs.
        DeviceError: A tensor lies elsewhere.
    """
    if len(inputs) != len(expected):
        raise ShapeError(f"the model has {len(expected)} inputs, got {len(inputs)}")
    for value, (name, shape) in zip(inputs, expected, strict=True):
        if not is_gpu_tensor(value) or value.device.index != index:
            place = getattr(value, "device", type(value))
            raise DeviceError(f"input {name!r} must lie on cuda:{index} as the others, got {place}")
        if str(value.dtype) != "torch.float32":
            raise ShapeError(f"inputs must be float32, got {value.dtype}; use .float()")
        got = tuple(value.shape)
        if got[1:] != tuple(shape) or got[0] != inputs[0].shape[0] or got[0] == 0:
            wanted, found = ",".join(map(str, ("batch", *shape))), ",".join(map(str, got))
            raise ShapeError(f"input {name!r} must have the shape [{wanted}], got [{found}]")
    return len(inputs[0])


def run_tensors(core: Any, inputs: tuple[Any, ...], batch: int) -> list[Any]:
    """Runs checked tensors; the outputs lie where the first input does."""
    import torch

    held = [value.detach().contiguous() for value in inputs]
    first = held[0]
    if first.is_cuda:  # the engine has a stream of its own: what torch has queued must be done
        torch.cuda.current_stream(first.device).synchronize()
    outputs = [
        torch.empty((batch, *info.shape), dtype=torch.float32, device=first.device)
        for info in core.outputs
    ]
    pointers = [[tensor.data_ptr() for tensor in tensors] for tensors in (held, outputs)]
    core.run_pointers(*pointers, batch)
    return outputs
