"""Ops that no file has, one for each way in which output channels may be made of input channels;
for tests of what is said of ops in general."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernelprune.errors import FormatError
from kernelprune.graph.ir import Node
from kernelprune.graph.ops.base import Op, Parameter, Shape, as_module, tensor


class Pick(Op):
    """Channels ``index`` of x, any of which may be left out."""

    name = "made_up_pick"
    rearranges = True

    def infer(self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape):
        return (declared[0], *input_shapes[0][1:])

    def tensors(self, node: Node, shapes: Sequence[Shape]):
        return {"index": (np.dtype("<u4"), (node.shape[0],))}

    def check_tensors(self, node: Node, shapes: Sequence[Shape]) -> None:
        if node.tensors["index"].max() >= shapes[0][0]:
            raise FormatError("index is not a channel")

    def channel_sources(self, node: Node, shapes: Sequence[Shape]):
        return [node.tensors["index"].astype(np.int64)]

    def ties(self, node: Node, shapes: Sequence[Shape]) -> list[bool]:
        return [False]

    def shrink(self, node: Node, live_inputs, live_output) -> None:
        place = np.cumsum(live_inputs[0]) - 1
        index = node.tensors["index"][live_output]
        node.tensors["index"] = place[index].astype(np.uint32)

    def to_torch(self, node: Node, shapes: Sequence[Shape]):
        index = tensor(node.tensors["index"])
        return as_module(lambda x, index: x[:, index], index=index)


class Stack(Op):
    """[2C,H,W] -> [C,2H,W]: each output channel is two input channels, one above the other."""

    name = "made_up_stack"
    rearranges = True

    def infer(self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape):
        channels, height, width = input_shapes[0]
        return (channels // 2, 2 * height, width)

    def channel_sources(self, node: Node, shapes: Sequence[Shape]):
        return [np.arange(shapes[0][0]).reshape(-1, 2)]

    def to_torch(self, node: Node, shapes: Sequence[Shape]):
        return as_module(lambda x: x.reshape(x.shape[0], x.shape[1] // 2, -1, x.shape[3]))


class Gate(Op):
    """a [C,H,W] times b [1,H,W] times ``scale`` [C]; ``shift`` is a number that is added."""

    name = "made_up_gate"
    min_inputs = max_inputs = 2
    parameters = (
        Parameter("shift", "number", low=-10, high=10, default=0.5),
        Parameter("sides", "integers", per_axis=True, low=0, high=3),
    )

    def infer(self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape):
        return input_shapes[0]

    def tensors(self, node: Node, shapes: Sequence[Shape]):
        return {"scale": (np.dtype("<f4"), (shapes[0][0],))}

    def channel_sources(self, node: Node, shapes: Sequence[Shape]):
        width = node.shape[0]
        return [np.arange(width), np.zeros(width, np.int64)]

    def ties(self, node: Node, shapes: Sequence[Shape]) -> list[bool]:
        return [True, False]

    def to_torch(self, node: Node, shapes: Sequence[Shape]):
        shift = self.parameter(node.params, "shift")
        scale = tensor(node.tensors["scale"][:, None, None])
        return as_module(lambda a, b, scale: a * b * scale + shift, scale=scale)


class Number(Op):
    """The tensor ``value``, whatever the image is."""

    name = "made_up_number"
    min_inputs = max_inputs = 0

    def infer(self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape):
        return declared

    def tensors(self, node: Node, shapes: Sequence[Shape]):
        return {"value": (np.dtype("<f4"), node.shape)}


MADE_UP = (Pick(), Stack(), Gate(), Number())
