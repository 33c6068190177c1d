"""layer_norm: normalized over one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import (
    Op,
    Parameter,
    Shape,
    as_module,
    elements,
    scale_tensors,
    tensor,
)
from kernelprune.graph.ops.binary import Operand, combined
from kernelprune.graph.ops.group_norm import normalized

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

# ---------------------------------------------------------------- rows


def _layer_norm(call: Any) -> Any:
    rows.check_floating(call["input"])
    weight, bias = call.array(call["weight"]), call.array(call["bias"])
    count, eps = len(call["normalized_shape"]), rows.number(call["eps"], "eps")
    if len(rows.torch_shape(call["input"])) == count:
        rows.axis_of(0, count)  # refuses
    if count == 1:
        x, axis, view = call.along(call["input"], -1)
        return view.of_value(normalized_along(call, x, axis, eps, weight, bias))
    x = call.value(call["input"])
    shape = tuple(call.shape(x))
    if count == len(shape):
        found: Operand = normalized(call, x, 1, eps)
        for function, array in (("mul", weight), ("add", bias)):
            if array is not None:
                found = combined(call, function, found, np.asarray(array, np.float64))
        return str(found)
    kept = shape[: len(shape) - count]
    flat = rows.reshaped(call, x, (*kept, elements(shape[len(kept) :])))
    return rows.reshaped(call, normalized_along(call, flat, len(kept), eps, weight, bias), shape)


def normalized_along(
    call: Any, x: str, axis: int, eps: float, weight: np.ndarray | None, bias: np.ndarray | None
) -> str:
    """A layer_norm node; ``weight`` and ``bias`` have a number for each entry along the axis."""
    side, kind = call.shape(x)[axis], rows.float_type(call)
    tensors = {
        "scale": np.ones(side, kind) if weight is None else weight.reshape(-1),
        "shift": np.zeros(side, kind) if bias is None else bias.reshape(-1),
    }
    params = {"axis": axis, "eps": eps}
    return rows.emit(call, "layer_norm", [x], params, tensors=tensors)


def _rms_norm(call: Any) -> str:
    """x / sqrt(mean of squares + eps) * weight."""
    rows.check_floating(call["input"])
    x = call.value(call["input"])
    rank, count = len(rows.torch_shape(call["input"])), len(call["normalized_shape"])
    axes = rows.axes_of(list(range(rank - count, rank)), rank)
    eps = call["eps"]
    if eps is None:
        eps = np.finfo(rows.float_type(call)).eps
    mean = rows.reduced(call, rows.unary(call, x, "square"), "mean", axes, True)
    factor = rows.unary(call, rows.affine(call, mean, 1.0, eps), "rsqrt")
    found: Operand = rows.binary(call, "mul", x, factor)
    if call["weight"] is not None:
        found = combined(call, "mul", found, rows.constant_per_image(call, call["weight"], rank))
    return str(found)


# ---------------------------------------------------------------- the op


class LayerNorm(Op):
    """(x - mean) / sqrt(variance + eps) over ``axis``, biased variance; then * scale + shift, which
    go along the axis."""

    name = "layer_norm"
    parameters = (Parameter("axis", "axis"), Parameter("eps", "number", low=0))
    torch_rows = {
        "aten::layer_norm": _layer_norm,
        "aten::native_layer_norm": _layer_norm,
        "aten::rms_norm": _rms_norm,
    }

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return input_shapes[0]

    def tensors(
        self, node: Node, shapes: Sequence[Shape]
    ) -> dict[str, tuple[np.dtype[Any], Shape]]:
        own = (np.dtype(np.float32), (shapes[0][node.params["axis"]],))
        return {"scale": own, "shift": own}

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        return [np.arange(node.shape[0]) if node.params["axis"] else None]

    def shrink(
        self, node: Node, live_inputs: Sequence[np.ndarray], live_output: np.ndarray
    ) -> None:
        """The tensors belong to an axis that keeps all entries."""

    def absorb(self, node: Node, scale: np.ndarray, shift: np.ndarray) -> bool:
        return node.params["axis"] == 0 and scale_tensors(node, scale, shift)

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        dim, eps = node.params["axis"] + 1, node.params["eps"]

        def forward(x: Any, scale: Any, shift: Any) -> Any:
            last = x.movedim(dim, -1)  # [N, ..., side]
            found = torch.nn.functional.layer_norm(last, scale.shape, scale, shift, eps)
            return found.movedim(-1, dim)

        return as_module(
            forward, **{name: tensor(node.tensors[name]) for name in ("scale", "shift")}
        )
