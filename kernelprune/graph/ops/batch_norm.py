"""Batch norm with running statistics. Only in traced graphs: it folds into the layer before it or
becomes a layer of its own. Tensors [C]: weight, bias, running_mean, running_var."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops.base import Op, Parameter, Shape, tensor

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

_ROLES = ("weight", "bias", "running_mean", "running_var")


def _batch_norm(call: Any) -> str:
    if call.get("training", False):
        raise UnsupportedOperator(
            "batch norm without running statistics depends on the batch; set track_running_stats"
        )
    x = call.value(call["input"])
    if call["running_mean"] is None:
        raise UnsupportedOperator(f"batch norm of {list(call.shape(x))} without running statistics")
    mean, variance = call.array(call["running_mean"]), call.array(call["running_var"])
    assert mean is not None and variance is not None
    weight, bias = call.array(call["weight"]), call.array(call["bias"])
    node = call.add("batch_norm", [x], {"eps": float(call["eps"])})
    node.tensors = {
        "weight": np.ones_like(mean) if weight is None else weight,
        "bias": np.zeros_like(mean) if bias is None else bias,
        "running_mean": mean,
        "running_var": variance,
    }
    node.parameters = call.owned(**{role: call[role] for role in _ROLES})
    return str(node.output)


class BatchNorm(Op):
    name = "batch_norm"
    since = 1
    in_file = False
    parameters = (Parameter("eps", "number", low=0),)
    elementwise = True
    module_roles = _ROLES
    torch_rows = {
        "aten::batch_norm": _batch_norm,
        "aten::native_batch_norm": _batch_norm,
        "aten::cudnn_batch_norm": _batch_norm,
        "aten::_native_batch_norm_legit_no_training": _batch_norm,
        "aten::_native_batch_norm_legit": _batch_norm,
    }

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return input_shapes[0]

    def tensors(
        self, node: Node, shapes: Sequence[Shape]
    ) -> dict[str, tuple[np.dtype[Any], Shape]]:
        return {role: (np.dtype(np.float32), (shapes[0][0],)) for role in _ROLES}

    def follow(self, node: Node, before: Sequence[Shape], after: Sequence[Shape]) -> None:
        """The numbers are a module's, which loses them with the channels."""
        node.shape = after[0]

    def learned_scale(self, node: Node) -> np.ndarray | None:
        return node.tensors["weight"]

    def scale_and_shift(self, node: Node) -> tuple[np.ndarray, np.ndarray] | None:
        """y = x * s + t with s = weight / sqrt(var + eps) and t = bias - mean * s."""
        own = {role: node.tensors[role].astype(np.float64) for role in _ROLES}
        scale = own["weight"] / np.sqrt(own["running_var"] + node.params["eps"])
        return scale, own["bias"] - own["running_mean"] * scale

    def lower(self, node: Node) -> None:
        """A 1x1 convolution or a linear layer whose connection pattern is the diagonal; for another
        rank an affine."""
        found = self.scale_and_shift(node)
        assert found is not None
        scale, shift = found
        node.tensors = {}
        if len(node.shape) not in (1, 3):
            node.op, node.params = "affine", {}
            node.tensors = {"scale": scale, "shift": shift}
            return
        node.params = {"activation": "none"}
        node.bias, node.groups = shift, len(scale)
        if len(node.shape) == 1:
            node.op, node.weight = "linear", np.diag(scale)
        else:
            node.op, node.weight = "conv2d", np.diag(scale)[:, :, None, None]
            node.params.update(kernel=[1, 1], stride=[1, 1], padding=[0, 0, 0, 0], dilation=[1, 1])
        node.set_all_connections(len(scale))

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        own = node.tensors
        variance = own["running_var"].astype(np.float64) + node.params["eps"]
        scale = own["weight"].astype(np.float64) / np.sqrt(variance)
        known = np.where(scale == 0, 0.0, inputs[0] - own["running_mean"])
        return np.asarray(known * scale + own["bias"])

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch
        from torch import nn

        kinds = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d, 4: nn.BatchNorm3d}
        norm = kinds[len(node.shape)](node.shape[0], eps=node.params["eps"])
        with torch.no_grad():
            for role in _ROLES:
                setattr(norm, role, None)
                values = tensor(node.tensors[role])
                learned = role in ("weight", "bias")
                setattr(norm, role, nn.Parameter(values) if learned else values)
        return norm

    def module_classes(self) -> tuple[type, ...]:
        from torch.nn.modules.batchnorm import _BatchNorm

        return (_BatchNorm,)

    def shrink_module(self, module: Any, inputs: np.ndarray, outputs: np.ndarray) -> None:
        module.num_features = len(outputs)

    def shift_input(self, module: Any, shift: Any) -> bool:
        mean = module.running_mean
        mean.copy_(mean.double() - shift.to(mean.device))
        return True
