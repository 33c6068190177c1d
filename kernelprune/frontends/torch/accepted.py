"""Which models and example inputs can be captured. Everything else is one clear Error here, before
torch says something about its own insides."""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from kernelprune.errors import Error, ShapeError

# Attribute under which a wrapper holds the user's model, by the wrapper's class.
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",  # torch.compile
}


def check_module(model: Any) -> None:
    """Raises Error unless ``model`` is a torch.nn.Module written in Python."""
    if isinstance(model, torch.export.ExportedProgram):
        raise Error("the model is an ExportedProgram: give program.module()")
    if not isinstance(model, nn.Module):
        hint = "; load it into a model first" if isinstance(model, dict) else ""
        if isinstance(model, type) and issubclass(model, nn.Module):
            hint = f"; make one first: {model.__name__}(...)"
        raise Error(f"the model is a {type(model).__name__}, not a torch.nn.Module{hint}")
    for name, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            place = f"the model's '{name}'" if name else "the model"
            raise Error(
                f"{place} is TorchScript (torch.jit), which cannot be captured: give the "
                "torch.nn.Module that it was made from"
            )


def check_weights(model: nn.Module) -> None:
    """Raises Error when a weight of the model has no values, or is sparse."""
    for kind, tensors in (("weight", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in tensors:
            if is_lazy(tensor):
                raise Error(
                    f"the {kind} '{name}' is lazy and has no shape yet: call the model once on an "
                    "example first"
                )
            if tensor.is_meta:
                raise Error(
                    f"the {kind} '{name}' lies on the meta device, which holds no values: load the "
                    "weights first (model.to_empty(device='cpu') and load_state_dict)"
                )
            if tensor.layout is not torch.strided:
                raise Error(
                    f"the {kind} '{name}' is a sparse tensor ({tensor.layout}): make it dense "
                    "(to_dense()); zeros in dense weights are found"
                )


def unwrapped(model: Any) -> Any:
    """The model inside torch's DataParallel, DistributedDataParallel and torch.compile."""
    while isinstance(model, nn.Module) and type(model).__module__.startswith("torch."):
        inside = _WRAPPERS.get(type(model).__name__)
        if inside is None:
            break
        model = getattr(model, inside)
    return model


def ordinary(model: nn.Module) -> nn.Module:
    """A copy of a model whose weights were made under torch.inference_mode, which cannot be traced;
    any other as it is."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model) if any(t.is_inference() for t in tensors) else model


def check_inputs(x: Any) -> tuple[torch.Tensor, ...]:
    """The example inputs as a tuple. Raises Error or ShapeError for anything but batches with
    values, of 1 to 4 axes per image."""
    inputs = x if isinstance(x, tuple) else (x,)
    if not inputs:
        raise Error("the example input is an empty tuple: give one tensor per input of the model")
    for tensor in inputs:
        if not isinstance(tensor, torch.Tensor):
            hint = " (torch.from_numpy makes one)" if type(tensor).__name__ == "ndarray" else ""
            raise Error(
                f"the example input is a {type(tensor).__name__}, not a torch.Tensor{hint}; "
                "several inputs are a tuple of tensors"
            )
        if tensor.layout is not torch.strided:
            raise Error("the example input is a sparse tensor: make it dense (to_dense())")
        if tensor.is_meta:
            raise Error("the example input lies on the meta device, which holds no values")
        _check_shape(tensor)
    return inputs


def _check_shape(tensor: torch.Tensor) -> None:
    shape = list(tensor.shape)
    wanted = "it must be a batch of images [N,C,H,W], of vectors [N,F], or of 2 to 4 axes"
    if not 2 <= tensor.dim() <= 5:
        hint = "; x[None] adds the batch" if tensor.dim() == 1 else ""
        raise ShapeError(f"the example input has shape {shape}; {wanted}{hint}")
    if tensor.shape[0] == 0:
        raise ShapeError(f"the example input has shape {shape}, no image; {wanted}")
    if 0 in shape:
        raise ShapeError(f"the example input has shape {shape}, no pixels; {wanted}")


def as_model_wants(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The inputs where the model's parameters lie, numbers of floating point in their type: an
    example may come from anywhere."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is None:
        return inputs
    return tuple(
        x.to(parameter.device, parameter.dtype if x.is_floating_point() else x.dtype)
        for x in inputs
    )


def reason(error: Exception) -> str:
    """One line of what torch or the model raised: the first, or what it announces."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    announced = [line for line in lines if line.startswith("- ")]
    if lines[0].startswith("Constraints violated") and announced:
        return announced[0].removeprefix("- ")
    return lines[0]


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Without torch's own accounts of a trace: it prints the whole graph, twice, before it raises
    what the user is told in one line."""
    loggers = [
        logger
        for name, logger in logging.root.manager.loggerDict.items()
        if name.partition(".")[0] == "torch" and isinstance(logger, logging.Logger)
    ]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
