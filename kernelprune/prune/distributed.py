"""Sums over the processes of a distributed run; without one everything is as it is.

Under ``torchrun`` every process sees its own part of each batch. Whatever decides what is pruned
(gradients, losses, measured scales) is summed over all of them, so all hold the same masks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def join_processes() -> None:
    """Joins the run that ``torchrun`` has started; does nothing outside of one, or twice.

    Tensors on GPUs are summed by NCCL, those on the CPU by gloo, in one run if need be.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank() % torch.cuda.device_count())
            dist.init_process_group("cpu:gloo,cuda:nccl")
        else:
            dist.init_process_group("gloo")


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def wait_for_all() -> None:
    sum_over_ranks(torch.zeros(1))  # a barrier that needs no device


def own_part(batch: Any) -> Any:
    """This process's rows of a batch: every ``world_size()``-th."""
    return batch if world_size() == 1 else batch[dist.get_rank() :: world_size()]


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process writes files and shows progress."""
    return world_size() == 1 or dist.get_rank() == 0


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, in place; returns the tensor."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def mean_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    return sum_over_ranks(tensor).div_(world_size())


def average_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Gradients become their mean over all processes: those of the global batch."""
    if world_size() > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                mean_over_ranks(parameter.grad)


def same_on_all(model: nn.Module) -> None:
    """Parameters and buffers as the first process has them."""
    if world_size() > 1:
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor, 0)


def as_first_has(masks: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The first process's masks: where a choice depends on measured times."""
    if world_size() > 1:
        for name, mask in masks.items():
            sent = mask.to(torch.uint8)
            dist.broadcast(sent, 0)
            masks[name] = sent.bool()
    return masks


class _SumOverRanks(torch.autograd.Function):
    """``sum_over_ranks`` of a copy; every process's loss depends on every process's part."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor) -> torch.Tensor:
        return sum_over_ranks(part.clone())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return sum_over_ranks(gradient.clone())


def _normalise(norm: _BatchNorm, x: torch.Tensor) -> torch.Tensor:
    """Batch norm over the parts of all processes (torch's SyncBatchNorm is for GPUs only)."""
    if not norm.training:
        return type(norm).forward(norm, x)
    axes = [0, *range(2, x.dim())]
    shape = [1, -1] + [1] * (x.dim() - 2)
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    count = values.new_full((1,), values.numel() / values.shape[1])
    totals: torch.Tensor = _SumOverRanks.apply(torch.cat([values.sum(axes), count]))
    count, mean = totals[-1], totals[:-1] / totals[-1]
    centred = values - mean.view(shape)
    squares: torch.Tensor = _SumOverRanks.apply(centred.square().sum(axes))
    variance = squares / count
    y = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        y = y * norm.weight.view(shape) + norm.bias.view(shape)
    if norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            newest = norm.momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked += 1
                if newest is None:  # torch's word for a plain mean
                    newest = 1.0 / int(norm.num_batches_tracked)
            unbiased = squares / (count - 1).clamp_min(1)
            norm.running_mean.lerp_(mean.to(norm.running_mean), newest or 0.0)
            norm.running_var.lerp_(unbiased.to(norm.running_var), newest or 0.0)
    return y.to(x.dtype)


@contextmanager
def synchronised_norms(*models: nn.Module | None) -> Iterator[None]:
    """Within the block the batch norms see the whole global batch while they train, so that several
    processes train as one does. Does nothing outside of a distributed run."""
    norms = [
        module
        for model in models
        for module in (() if model is None or world_size() == 1 else model.modules())
        if isinstance(module, _BatchNorm) and "forward" not in vars(module)
    ]
    for norm in norms:
        norm.forward = partial(_normalise, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward
