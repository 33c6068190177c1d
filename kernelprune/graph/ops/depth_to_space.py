"""depth_to_space and space_to_depth: channels to blocks of pixels and back, in the order of torch's
pixel_shuffle and pixel_unshuffle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import ShapeError, UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Op, Parameter, Row, Shape, need_map

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

_MAX_BLOCK = 64
_BLOCK = Parameter("block", "integer", low=2, high=_MAX_BLOCK)


def _row(op: str, argument: str) -> Row:
    def row(call: Any) -> str:
        x, block = call.map(call["self"]), int(call[argument])
        if block == 1:
            return x
        if block > _MAX_BLOCK:
            raise UnsupportedOperator(f"blocks of {block}: at most {_MAX_BLOCK}")
        return rows.emit(call, op, [x], {"block": block})

    return row


class DepthToSpace(Op):
    """[C b b, H, W] -> [C, H b, W b]: channel (c b + i) b + j gives pixel (i, j) of each block."""

    name = "depth_to_space"
    parameters = (_BLOCK,)
    rearranges = True
    torch_rows = {"aten::pixel_shuffle": _row("depth_to_space", "upscale_factor")}

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        channels, height, width = need_map(input_shapes[0])
        block = params["block"]
        if channels % (block * block):
            raise ShapeError(f"{channels} channels are not blocks of {block * block}")
        return (channels // (block * block), height * block, width * block)

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        pixels = node.params["block"] ** 2
        return [np.arange(node.shape[0] * pixels).reshape(-1, pixels)]  # [C, b * b]

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        return torch.nn.PixelShuffle(node.params["block"])


class SpaceToDepth(Op):
    """[C, H b, W b] -> [C b b, H, W]: the inverse of depth_to_space."""

    name = "space_to_depth"
    parameters = (_BLOCK,)
    rearranges = True
    torch_rows = {"aten::pixel_unshuffle": _row("space_to_depth", "downscale_factor")}

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        channels, height, width = need_map(input_shapes[0])
        block = params["block"]
        if height % block or width % block:
            raise ShapeError(f"a map of {height}x{width} is not blocks of {block}x{block}")
        return (channels * block * block, height // block, width // block)

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        return [np.arange(node.shape[0]) // node.params["block"] ** 2]

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        return torch.nn.PixelUnshuffle(node.params["block"])
