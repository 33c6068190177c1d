"""What a program computes without its input: parameters, buffers, sizes.

The size of the batch is free, so whatever depends on it is computed for one image and for two. A
tensor that repeats itself for every image (``torch.zeros(x.shape[0], 4)``) is then known per image.
"""

from __future__ import annotations

from typing import Any

import torch

from kernelprune.errors import UnsupportedOperator

_KINDS = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}


class Constants:
    """Fills ``env`` with tensors; ``sizes`` has the results that depend on the batch, as a pair
    for one image and for two."""

    def __init__(self, env: dict[Any, Any]):
        self.env = env
        self.batch: Any = None  # the symbol that stands for the batch in torch's shapes
        self.sizes: dict[Any, tuple[Any, Any]] = {}

    def number(self, fx_node: Any) -> None:
        """A size, which torch knows as an expression in the batch; anything else is left alone."""
        value = fx_node.meta.get("val")
        if isinstance(value, tuple(_KINDS)):
            self.sizes[fx_node] = (self.at(value, 1), self.at(value, 2))

    def at(self, value: Any, images: int) -> Any:
        """What one of torch's expressions in the batch is for a number of images."""
        return _KINDS[type(value)](value.node.expr.subs(self.batch.node.expr, images))

    def known(self, fx_node: Any) -> bool:
        """Does the node depend on constants and sizes alone?"""
        return all(self._is_known(argument) for argument in fx_node.all_input_nodes)

    def _is_known(self, argument: Any) -> bool:
        found = self.env.get(argument)
        return (
            argument in self.sizes
            or isinstance(found, torch.Tensor)
            or (isinstance(found, (tuple, list)) and all(torch.is_tensor(f) for f in found))
        )

    def compute(self, fx_node: Any) -> None:
        """Runs the operator. Raises UnsupportedOperator when its result is random, or differs with
        the size of the batch in more than the number of images."""
        if _is_random(fx_node):
            raise UnsupportedOperator("is random")
        free = any(argument in self.sizes for argument in fx_node.all_input_nodes)
        one = self._result(fx_node, 0)
        self.env[fx_node] = one
        if not free:
            return
        two = self._result(fx_node, 1)
        if torch.is_tensor(one) and one.shape == two.shape and torch.equal(one, two):
            return
        if not torch.is_tensor(one) or not _repeats(one, two):
            del self.env[fx_node]
            raise UnsupportedOperator("depends on the size of the batch")
        self.sizes[fx_node] = (one, two)

    def _result(self, fx_node: Any, images: int) -> Any:
        def given(argument: Any) -> Any:
            if argument in self.sizes:
                return self.sizes[argument][images]
            return self.env[argument]

        args = torch.fx.map_arg(fx_node.args, given)
        kwargs = torch.fx.map_arg(fx_node.kwargs, given)
        with torch.no_grad():
            return fx_node.target(*args, **kwargs)


def _repeats(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Is ``two``, the tensor of two images, that of one image twice?"""
    return (
        one.dim() > 0
        and one.shape[0] == 1
        and two.shape == (2, *one.shape[1:])
        and torch.equal(two, one.expand_as(two))
    )


def _is_random(fx_node: Any) -> bool:
    """Dropout that is off is random by its tag alone: its last argument says whether it is on."""
    tags = getattr(fx_node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded in tags and fx_node.args[-1:] != (False,)
