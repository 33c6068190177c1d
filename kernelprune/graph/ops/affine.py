"""affine: a factor and a summand by channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.graph.ops.base import Op, Shape, as_module, scale_tensors, tensor

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


class Affine(Op):
    """x * scale[c] + shift[c]. What torch adds or multiplies by one number, or by one per channel,
    becomes this op (see binary)."""

    name = "affine"
    elementwise = True

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return input_shapes[0]

    def tensors(
        self, node: Node, shapes: Sequence[Shape]
    ) -> dict[str, tuple[np.dtype[Any], Shape]]:
        own = (np.dtype(np.float32), shapes[0][:1])
        return {"scale": own, "shift": own}

    def scale_and_shift(self, node: Node) -> tuple[np.ndarray, np.ndarray] | None:
        return (
            node.tensors["scale"].astype(np.float64),
            node.tensors["shift"].astype(np.float64),
        )

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        scale, shift = (node.tensors[role].astype(np.float64) for role in ("scale", "shift"))
        return np.where(scale == 0, 0.0, inputs[0] * scale) + shift

    def absorb(self, node: Node, scale: np.ndarray, shift: np.ndarray) -> bool:
        return scale_tensors(node, scale, shift)

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        # [C] -> [C, 1, ...]: one number per channel of x [N, C, ...]
        sides = (-1,) + (1,) * (len(shapes[0]) - 1)
        parts = {role: tensor(node.tensors[role]).reshape(sides) for role in ("scale", "shift")}
        return as_module(lambda x, scale, shift: x * scale + shift, **parts)
