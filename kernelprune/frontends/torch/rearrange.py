"""Rows of operators that move no number: they change how a value is read, and leave no node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.torch.call import Call
from kernelprune.frontends.torch.view import View
from kernelprune.graph.ops.base import Row

Order = Callable[[Call, int], list[int]]  # (call, rank) -> axis of the input at each place


def _permuted(order: Order) -> Row:
    def row(call: Call) -> View:
        view = call.view(call["self"])
        return view.permuted(order(call, view.rank))

    return row


def _permute(call: Call, rank: int) -> list[int]:
    return [int(axis) % rank for axis in call["dims"]]


def _transpose(call: Call, rank: int) -> list[int]:
    names = ("dim0", "dim1") if "dim0" in call.arguments else ("axis0", "axis1")
    first, second = (int(call[name]) % rank for name in names)
    order = list(range(rank))
    order[first], order[second] = second, first
    return order


def _movedim(call: Call, rank: int) -> list[int]:
    source, destination = (
        [int(axis) % rank for axis in (given if isinstance(given, (list, tuple)) else [given])]
        for given in (call["source"], call["destination"])
    )
    places = dict(zip(destination, source, strict=True))
    rest = iter([axis for axis in range(rank) if axis not in source])
    return [places[axis] if axis in places else next(rest) for axis in range(rank)]


def _matrix_transpose(call: Call, rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]


def _reversed(call: Call, rank: int) -> list[int]:
    return list(range(rank))[::-1]


def _reshape(call: Call) -> str | View:
    source = call.view(call["self"])
    literal = _holds_number(call)
    wanted = [_side(call, side) for side in call.fx_node.meta["val"].shape]
    view = source.reshaped(wanted)
    if view is None:  # an axis begins inside one of the input's and ends inside another
        view = call.walk.arranger.in_order(source).reshaped(wanted)
    if view is None:
        raise UnsupportedOperator(
            f"gives shape {list(call.fx_node.meta['val'].shape)}: the batch is mixed with an "
            "image's axes"
        )
    if view.rank == 2 and view.batch_first() and 1 < source.rank <= 5 and source.batch_first():
        return _flattened(call, literal)
    node = call.walk.nodes.get(view.value)
    if node is not None and literal:
        node.literal = True
    return view


def _flattened(call: Call, literal: bool) -> str:
    """To a vector, which is a node at once: a linear layer wants it so."""
    value = call.value(call["self"])
    if len(call.shape(value)) == 1:
        return value
    # "literal": the model's code holds the number of features, so it cannot be made smaller.
    return call.add("flatten", [value], {"literal": literal}).output


def _holds_number(call: Call) -> bool:
    sizes: list[Any] = list(call.get("shape", call.get("size")) or [])
    return bool(sizes) and sizes[-1] != -1


def _side(call: Call, side: Any) -> tuple[int, bool]:
    """A side as torch infers it, without the batch's factor, and whether it has that factor."""
    if isinstance(side, int):
        return side, False
    one, two = (call.walk.constants.at(side, images) for images in (1, 2))
    if two != 2 * one:
        raise UnsupportedOperator(f"gives a side of {side}: the batch is mixed with others")
    return one, True


# ---------------------------------------------------------------- the same numbers


def _same(call: Call) -> View:
    """Operators that change nothing at inference."""
    source = next(iter(call.arguments.values()))
    result = call.fx_node.meta["val"]
    result = result[0] if isinstance(result, (tuple, list)) else result
    _check_type(call, source.meta["val"].dtype, result.dtype)
    return call.view(source)


def _check_type(call: Call, before: torch.dtype, after: torch.dtype) -> None:
    """A graph's numbers are float32. Bytes, and indices, are numbers all the same; a model in half
    precision may go to and fro; what drops digits in a float32 model is refused."""
    from_integer = not before.is_floating_point
    if before == after or (from_integer and before is not torch.bool and not after.is_complex):
        return
    if after.is_floating_point and (
        after.itemsize >= 4 or after.itemsize >= call.walk.example.dtype.itemsize
    ):
        return
    shown = [str(kind).removeprefix("torch.") for kind in (before, after)]
    hint = (
        "; keep to float32, or export a model that is in half precision as a whole"
        if after.is_floating_point
        else ""
    )
    raise UnsupportedOperator(f"changes the type from {shown[0]} to {shown[1]}{hint}")


def _dropout(call: Call) -> View:
    if call.get("train", False):
        raise UnsupportedOperator("dropout is on in eval mode")
    return _same(call)


def _named(row: Row, *names: str) -> dict[str, Row]:
    return {f"aten::{name}": row for name in names}


ROWS: dict[str, Row] = {
    **_named(_permuted(_permute), "permute"),
    **_named(_permuted(_transpose), "transpose", "swapaxes", "swapdims"),
    **_named(_permuted(_movedim), "movedim", "moveaxis"),
    **_named(_permuted(_transpose), "transpose_"),
    **_named(_permuted(_matrix_transpose), "mT", "adjoint"),
    **_named(_permuted(_reversed), "t", "numpy_T"),
    **_named(_reshape, "view", "_unsafe_view", "reshape", "flatten", "unflatten", "view_as"),
    **_named(_reshape, "reshape_as", "squeeze", "squeeze_", "unsqueeze", "unsqueeze_"),
    **_named(_same, "alias", "clone", "detach", "detach_", "contiguous", "to", "_to_copy"),
    **_named(_same, "lift_fresh_copy", "type_as"),
    **_named(_dropout, "dropout", "dropout_", "feature_dropout", "feature_dropout_"),
    **_named(_dropout, "alpha_dropout", "feature_alpha_dropout", "native_dropout"),
}
