"""What the rows of the capture table share: axes, constants and nodes of a call.

A row sees one call of an ATen operator (kernelprune.frontends.torch.call.Call); what appends nodes
takes a call of an ONNX operator as well (kernelprune.frontends.onnx.call.Call). torch's axis 0 is
the batch; torch's axis d is axis d - 1 of a shape per image. A tensor ``[N]``, which has no other
axis, is the value of shape ``[1]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops.base import MAX_RANK, Shape, elements, is_integer

# ---------------------------------------------------------------- what a call says


def torch_shape(argument: Any) -> tuple[Any, ...]:
    """The shape of a tensor argument as torch has it; the batch may be a symbol."""
    return tuple(argument.meta["val"].shape)


def result_shape(call: Any, item: int = 0) -> Shape:
    """Shape per image of the result, or of the ``item``-th of several. Refused when the first axis
    is not the batch, or there are too many others."""
    value = call.fx_node.meta["val"]
    shape = call.walk.shape_per_image(value[item] if isinstance(value, (tuple, list)) else value)
    if len(shape) > MAX_RANK or 0 in shape:
        what = "no elements" if 0 in shape else f"more than {MAX_RANK} axes"
        raise UnsupportedOperator(f"gives shape {list(shape)} per image, {what}")
    return tuple(shape)


def producer(call: Any, value: str) -> Any:
    """The node that made ``value``; None for an input of the graph."""
    return call.walk.nodes.get(value)


def user_operators(call: Any) -> set[str]:
    """Names of the operators that read the result of the call."""
    return set(call.user_operators())


def check_floating(*arguments: Any) -> None:
    """Refuses to compute with integers: the engine's numbers are float32."""
    for argument in arguments:
        kind = getattr(getattr(argument, "meta", {}).get("val"), "dtype", None)
        if kind is not None and not kind.is_floating_point:
            raise UnsupportedOperator(f"computes with {kind}: convert to floating point first")


def check_dtype(call: Any, name: str = "dtype") -> None:
    """Refuses an operator that converts to another type than its input's."""
    wanted = call.get(name)
    given = next(iter(call.arguments.values())).meta["val"].dtype
    if wanted is not None and wanted != given:
        raise UnsupportedOperator(f"changes the type from {given} to {wanted}")


def float_type(call: Any) -> type:
    """float64 in a model of float64, else float32: the type that constants are kept in."""
    return np.float64 if call.is_double() else np.float32


def number(argument: Any, what: str) -> float:
    """A number of the call; refused if it is a tensor or not finite."""
    if isinstance(argument, bool) or not isinstance(argument, (int, float)):
        raise UnsupportedOperator(f"{what} is not a plain number")
    if not math.isfinite(argument):
        raise UnsupportedOperator(f"{what} is {argument}, which is not finite")
    return float(argument)


def integers(arguments: Any, what: str) -> list[int]:
    """Whole numbers of the call; refused if one is a symbol (it would follow the batch)."""
    values = arguments if isinstance(arguments, (list, tuple)) else [arguments]
    if not all(is_integer(value) for value in values):
        raise UnsupportedOperator(f"{what} depends on the batch or is no plain number")
    return [int(value) for value in values]


# ---------------------------------------------------------------- axes


def axis_of(dim: int, rank: int) -> int:
    """Axis per image of torch's axis ``dim`` of a tensor with ``rank`` axes, the batch included."""
    axis = int(dim) % max(rank, 1)
    if axis == 0:
        raise UnsupportedOperator("works along the batch: images of one batch would mix")
    return axis - 1


def axes_of(dims: Any, rank: int) -> list[int]:
    """``axis_of`` of one or several axes, ascending; None or none: all of them."""
    if dims is None or (isinstance(dims, (list, tuple)) and not dims):
        dims = range(rank)
    dims = [dims] if isinstance(dims, int) else dims
    return sorted({axis_of(dim, rank) for dim in dims})


# ---------------------------------------------------------------- nodes


def emit(
    call: Any,
    op: str,
    inputs: Sequence[str],
    params: dict[str, Any] | None = None,
    *,
    shape: Shape | None = None,
    tensors: dict[str, np.ndarray] | None = None,
) -> str:
    """Appends a node and returns the name of its value. ``shape``: what the node declares, for ops
    whose parameters do not tell; else it follows from the inputs."""
    from kernelprune.graph.ops import OPS

    params = params or {}
    rule = OPS[op]
    given = [tuple(call.shape(name)) for name in inputs]
    inferred = rule.infer(given, params, tuple(shape or ()))
    node = call.add(op, list(inputs), params, inferred)
    node.tensors.update(tensors or {})
    return str(node.output)


def reshaped(call: Any, value: str, shape: Sequence[int]) -> str:
    """``value`` in another shape; itself if it has that shape."""
    shape = tuple(int(side) for side in shape)
    if tuple(call.shape(value)) == shape:
        return value
    return emit(call, "reshape", [value], shape=shape)


def permuted(call: Any, value: str, axes: Sequence[int]) -> str:
    """``value`` with axis ``axes[i]`` at place i; itself if nothing moves."""
    if list(axes) == list(range(len(axes))):
        return value
    return emit(call, "permute", [value], {"axes": [int(axis) for axis in axes]})


def sliced(call: Any, value: str, axis: int, start: int, stop: int, step: int = 1) -> str:
    """Entries ``start`` to ``stop`` of an axis; ``value`` itself if these are all."""
    if (start, stop, step) == (0, call.shape(value)[axis], 1):
        return value
    params = {"axis": axis, "start": int(start), "stop": int(stop), "step": int(step)}
    return emit(call, "slice", [value], params)


def concatenated(call: Any, values: Sequence[str], axis: int) -> str:
    if len(values) == 1:
        return values[0]
    return emit(call, "concat", values, {"axis": axis} if axis else {})


def unary(call: Any, value: str, function: str, alpha: float = 0.0, beta: float = 0.0) -> str:
    params = {"function": function, "alpha": float(alpha), "beta": float(beta)}
    return emit(call, "unary", [value], params)


def binary(call: Any, function: str, a: str, b: str) -> str:
    return emit(call, "binary", [a, b], {"function": function})


def affine(call: Any, value: str, scale: Any, shift: Any) -> str:
    """``value * scale + shift``; both one number or one per channel. Kept in float64."""
    channels = call.shape(value)[0]
    tensors: dict[str, np.ndarray] = {
        name: np.ascontiguousarray(np.broadcast_to(np.asarray(part, float_type(call)), channels))
        for name, part in (("scale", scale), ("shift", shift))
    }
    return emit(call, "affine", [value], tensors=tensors)


def reduced(call: Any, value: str, function: str, axes: Sequence[int], keepdim: bool) -> str:
    params = {"function": function, "axes": [int(axis) for axis in axes], "keepdim": bool(keepdim)}
    return emit(call, "reduce", [value], params)


def constant(call: Any, array: np.ndarray) -> str:
    """A node that is ``array`` (per image) for every image."""
    array = np.ascontiguousarray(array, float_type(call))
    if not np.isfinite(array).all():
        raise UnsupportedOperator("a constant holds a number that is not finite")
    return emit(call, "constant", [], shape=array.shape, tensors={"value": array})


# ---------------------------------------------------------------- operands


def is_constant(call: Any, argument: Any) -> bool:
    """A number, or a tensor that does not depend on the model's input."""
    return isinstance(argument, (int, float)) or call.is_constant(argument)


def constant_per_image(call: Any, argument: Any, rank: int) -> np.ndarray:
    """A constant operand, or the array of one, aligned as torch broadcasts it to a tensor of
    ``rank`` axes with the batch: an array of ``rank - 1`` axes (at least one)."""
    known = isinstance(argument, (int, float, np.ndarray))
    array = np.asarray(argument if known else call.array(argument))
    if array.ndim > rank or (array.ndim == rank and array.shape[0] != 1):
        raise UnsupportedOperator(
            f"a constant of shape {list(array.shape)} reaches into the batch axis"
        )
    sides = array.shape[1:] if array.ndim == rank else array.shape
    per_image = max(rank - 1, 1)
    return array.reshape((1,) * (per_image - len(sides)) + tuple(sides))


def by_channel(array: np.ndarray, shape: Shape) -> np.ndarray | None:
    """An aligned constant (see ``constant_per_image``) as one number per channel of ``shape``; None
    if it differs within a channel or makes the result larger."""
    if array.shape[0] not in (1, shape[0]) or elements(array.shape[1:]) != 1:
        return None
    return np.broadcast_to(array.reshape(array.shape[0]), shape[:1])


def finite_for(call: Any, array: np.ndarray, readers: set[str]) -> np.ndarray:
    """Minus infinity as float32's lowest number where all ``readers`` of the result treat the two
    alike: a softmax gives both no weight, a max pool takes neither. Else it stays (and is then
    refused, as a file holds finite numbers alone)."""
    if not np.isneginf(array).any() or not user_operators(call) <= readers:
        return array
    return np.where(np.isneginf(array), float(np.finfo(np.float32).min), array)


SOFTMAX = {"aten::softmax", "aten::_softmax"}


def rows(names: Sequence[str], row: Callable[[Any], Any]) -> dict[str, Callable[[Any], Any]]:
    """The same row for several operators and for their forms in place."""
    return {f"aten::{name}{suffix}": row for name in names for suffix in ("", "_")}
