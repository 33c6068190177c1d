"""Targets of any task: a tensor, or tuples, lists and dictionaries of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from kernelprune.errors import Error


def map_tensors(change: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """The same structure with ``change(tensor)`` in place of every tensor."""
    return pytree.tree_map(lambda leaf: change(leaf) if _is_tensor(leaf) else leaf, value)


def first_of(targets: Any, count: int, images: int) -> Any:
    """The targets of the first ``count`` of so many images."""
    if _by_image(targets, images):
        return targets[:count]
    return map_tensors(lambda tensor: tensor[:count], targets)


def check_targets(targets: Any, images: int) -> None:
    """Raises Error unless there is a target for each image: tensors ``[images, ...]``, however
    nested, or a list with an entry for each."""
    if _by_image(targets, images):
        return
    for tensor in tensors_of(targets):
        if tensor.dim() == 0:
            raise Error("the loader gives targets without an axis for the images")
        if len(tensor) != images:
            raise Error(f"the loader gave a batch of {images} images and {len(tensor)} targets")


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    return filter(_is_tensor, pytree.tree_leaves(value))


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor)


def _by_image(targets: Any, images: int) -> bool:
    """A list with an entry for each image, such as a detector's boxes; a list of tensors is what
    torch's collate makes of a tuple."""
    is_list = isinstance(targets, list) and len(targets) == images
    return is_list and not any(map(_is_tensor, targets))
