"""Sums over the processes of a distributed run; without one everything is as it is.

Under ``torchrun`` every process sees its own part of each batch. Whatever decides what is pruned
(gradients, losses, measured scales) is summed over all of them, so all hold the same masks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


def join_processes() -> None:
    """Joins the run that ``torchrun`` has started; does nothing outside of one, or twice."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def wait_for_all() -> None:
    if world_size() > 1:
        dist.barrier()


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
