"""group_norm: each group of channels normalized over its channels and all places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import ShapeError
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import (
    MAX_EXTENT,
    Op,
    Parameter,
    Shape,
    as_module,
    scale_tensors,
    tensor,
)

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

# ---------------------------------------------------------------- rows


def normalized(
    call: Any,
    x: str,
    groups: int,
    eps: Any,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
) -> str:
    """A group_norm node; ``weight`` and ``bias`` [C] or None."""
    kind, channels = rows.float_type(call), call.shape(x)[0]
    tensors = {
        "scale": np.ones(channels, kind) if weight is None else weight,
        "shift": np.zeros(channels, kind) if bias is None else bias,
    }
    params = {"groups": int(groups), "eps": rows.number(eps, "eps")}
    return rows.emit(call, "group_norm", [x], params, tensors=tensors)


def _group_norm(call: Any) -> str:
    rows.check_floating(call["input"])
    groups = call.get("num_groups", call.get("group"))
    x = call.value(call["input"])
    return normalized(
        call, x, groups, call["eps"], call.array(call["weight"]), call.array(call["bias"])
    )


def _instance_norm(call: Any) -> str:
    rows.check_floating(call["input"])
    x, weight, bias = call.value(call["input"]), *(call.array(call[n]) for n in ("weight", "bias"))
    if call["use_input_stats"]:
        return normalized(call, x, call.shape(x)[0], call["eps"], weight, bias)
    # With running statistics it is a batch norm.
    mean, variance = (
        call.array(call[name]).astype(np.float64) for name in ("running_mean", "running_var")
    )
    scale = (1.0 if weight is None else weight) / np.sqrt(variance + call["eps"])
    return rows.affine(call, x, scale, (0.0 if bias is None else bias) - mean * scale)


# ---------------------------------------------------------------- the op


class GroupNorm(Op):
    """(x - mean) / sqrt(variance + eps) over each group of C / groups channels with all other axes,
    biased variance; then * scale[c] + shift[c]. As many groups as channels: instance norm."""

    name = "group_norm"
    parameters = (
        Parameter("groups", "integer", low=1, high=MAX_EXTENT),
        Parameter("eps", "number", low=0),
    )
    torch_rows = {
        "aten::group_norm": _group_norm,
        "aten::native_group_norm": _group_norm,
        "aten::instance_norm": _instance_norm,
    }

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        shape = input_shapes[0]
        if shape[0] % params["groups"]:
            raise ShapeError(f"{shape[0]} channels are not {params['groups']} equal groups")
        return shape

    def tensors(
        self, node: Node, shapes: Sequence[Shape]
    ) -> dict[str, tuple[np.dtype[Any], Shape]]:
        own = (np.dtype(np.float32), shapes[0][:1])
        return {"scale": own, "shift": own}

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        """A channel that leaves a group changes the group's mean, so groups of several keep all."""
        alone = node.params["groups"] == node.shape[0]
        return [np.arange(node.shape[0]) if alone else None]

    def shrink(
        self, node: Node, live_inputs: Sequence[np.ndarray], live_output: np.ndarray
    ) -> None:
        super().shrink(node, live_inputs, live_output)
        if not live_output.all():
            node.params["groups"] = int(live_output.sum())

    def absorb(self, node: Node, scale: np.ndarray, shift: np.ndarray) -> bool:
        return scale_tensors(node, scale, shift)

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        groups, eps = node.params["groups"], node.params["eps"]
        function = torch.nn.functional.group_norm
        return as_module(
            lambda x, scale, shift: function(x, groups, scale, shift, eps),
            scale=tensor(node.tensors["scale"]),
            shift=tensor(node.tensors["shift"]),
        )
