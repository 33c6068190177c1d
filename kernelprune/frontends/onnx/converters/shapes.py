"""What moves elements, and what says how many there are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.onnx.call import Call
from kernelprune.frontends.onnx.values import Tensor, reshaped
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.gather import gathered
from kernelprune.graph.ops.pad import padded

# ---------------------------------------------------------------- constants


def _constant(call: Call) -> np.ndarray:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        found = call.get(name)
        if found is not None:
            kind = {"f": np.float32, "i": np.int64}.get(name.removeprefix("value_")[:1])
            return np.asarray(found, kind)
    raise UnsupportedOperator("a constant that holds no numbers")


def _shape(call: Call) -> np.ndarray:
    sides = call.tensor().shape(call.walk.batch)
    start, end = int(call.get("start", 0)), call.get("end")
    return np.asarray(sides[start : None if end is None else int(end)], np.int64)


def _size(call: Call) -> np.ndarray:
    return np.asarray(math.prod(call.tensor().shape(call.walk.batch)), np.int64)


# ---------------------------------------------------------------- the same elements


def _in_shape(call: Call, x: Tensor, target: Sequence[int]) -> Tensor:
    sides, batch = reshaped(x, target, call.walk.batch)
    shape = sides or (1,)
    if len(shape) == 1 and len(call.shape(x.value)) > 1:
        return Tensor(rows.emit(call, "flatten", [x.value]), sides, batch)
    return Tensor(rows.reshaped(call, x.value, shape), sides, batch)


def _reshape(call: Call) -> Tensor:
    x = call.tensor()
    target = call.integers(1, "shape") or []
    own = x.shape(call.walk.batch)
    if not call.get("allowzero", 0):
        if any(side == 0 and place >= len(own) for place, side in enumerate(target)):
            raise UnsupportedOperator("copies a side that its input has not")
        target = [own[place] if side == 0 else side for place, side in enumerate(target)]
    return _in_shape(call, x, target)


def _flatten(call: Call) -> Tensor:
    x = call.tensor()
    axis = int(call.get("axis", 1))
    own = x.shape(call.walk.batch)
    if not -len(own) <= axis <= len(own):
        raise UnsupportedOperator(f"flattens from axis {axis} of {len(own)}")
    axis += len(own) if axis < 0 else 0
    return _in_shape(call, x, [math.prod(own[:axis]), math.prod(own[axis:])])


def _squeeze(call: Call) -> Tensor:
    x = call.tensor()
    own = x.shape(call.walk.batch)
    dims = call.integers(1, "axes")
    if dims is None:
        places = {place for place, side in enumerate(own) if side == 1}
    else:
        places = {x.place(dim) for dim in dims}
    if any(own[place] != 1 for place in places):
        raise UnsupportedOperator("squeezes an axis of more than 1, or the batch")
    left = [side for place, side in enumerate(own) if place not in places]
    kept = [side for place, side in enumerate(own) if place not in places and place != x.batch]
    batch = None
    if x.batch is not None and x.batch not in places:
        batch = x.batch - sum(place < x.batch for place in places)
    assert len(left) == len(kept) + (batch is not None)
    return Tensor(rows.reshaped(call, x.value, kept or [1]), tuple(kept), batch)


def _unsqueeze(call: Call) -> Tensor:
    x = call.tensor()
    dims = call.integers(1, "axes") or []
    rank = x.rank + len(dims)
    places = {dim % rank for dim in dims if -rank <= dim < rank}
    if len(places) < len(dims):
        raise UnsupportedOperator(f"adds the axes {dims} to {x.rank}")
    old = iter([*range(x.rank)])
    # For each axis of the result that of x, None for a new one.
    sources = [None if place in places else next(old) for place in range(rank)]
    own = x.shape(1)
    batch = sources.index(x.batch) if x.batch is not None else None
    if batch is None and sources and sources[0] is None:
        batch = 0  # the batch of one that was dropped is back
    sides = [
        1 if source is None else own[source]
        for place, source in enumerate(sources)
        if place != batch
    ]
    return Tensor(rows.reshaped(call, x.value, sides or [1]), tuple(sides), batch)


def _transpose(call: Call) -> Tensor:
    x = call.tensor()
    order = [int(dim) for dim in call.get("perm") or range(x.rank)[::-1]]
    if sorted(order) != list(range(x.rank)):
        raise UnsupportedOperator(f"the order {order} of {x.rank} axes")
    batch = None if x.batch is None else order.index(x.batch)
    axes = [x.axis(dim) for dim in order if dim != x.batch]
    value = rows.permuted(call, x.value, axes) if axes else x.value
    return Tensor(value, tuple(x.sides[axis] for axis in axes), batch)


def _depth_to_space(call: Call) -> Tensor:
    x, block = call.map(), int(call.get("blocksize", 1))
    channels, height, width = x.sides
    if block < 1 or channels % (block * block):
        raise UnsupportedOperator(f"{channels} channels in blocks of {block}")
    value = x.value
    if call.get("mode", "DCR") == "DCR" and block > 1:
        order = np.arange(channels).reshape(block * block, -1).T.reshape(-1)
        value = gathered(call, value, 0, order)
    if block > 1:
        value = rows.emit(call, "depth_to_space", [value], {"block": block})
    return call.result(value)


def _space_to_depth(call: Call) -> Tensor:
    """ONNX's channels are in the order of a block's pixels."""
    x, block = call.map(), int(call.get("blocksize", 1))
    if block < 2:
        return x
    value = rows.emit(call, "space_to_depth", [x.value], {"block": block})
    order = np.arange(x.sides[0] * block * block).reshape(-1, block * block).T.reshape(-1)
    return call.result(gathered(call, value, 0, order))


# ---------------------------------------------------------------- some of the elements


def _slice(call: Call) -> Tensor:
    x = call.tensor()
    starts, ends = call.integers(1, "starts"), call.integers(2, "ends")
    if starts is None or ends is None:
        raise UnsupportedOperator("a slice without starts or ends")
    dims = call.integers(3, "axes") or list(range(len(starts)))
    steps = call.integers(4, "steps") or [1] * len(starts)
    if not len(starts) == len(ends) == len(dims) == len(steps) or 0 in steps:
        raise UnsupportedOperator("starts, ends, axes and steps that do not go together")
    value = x.value
    for start, end, dim, step in zip(starts, ends, dims, steps, strict=True):
        if x.place(dim) == x.batch:
            if start == 0 and end >= call.walk.batch and step == 1:
                continue
            raise UnsupportedOperator("takes some images of the batch: images would mix")
        value = _entries(call, value, x.axis(dim), slice(start, end, step))
    return x.of(value, call.shape(value))


def _entries(call: Call, value: str, axis: int, entries: slice) -> str:
    """What Python's slice takes; ONNX writes the ends of a range downwards the same way, but for
    those before the first, which are very low."""
    side = call.shape(value)[axis]
    start, end, step = entries.start, entries.stop, entries.step
    if step < 0 and end < -side:
        end = None
    start, stop, step = slice(start, end, step).indices(side)
    if not len(range(start, stop, step)):
        raise UnsupportedOperator("a slice without entries")
    if step > 0:
        return rows.sliced(call, value, axis, start, stop, step)
    return gathered(call, value, axis, np.arange(start, stop, step))


def _split(call: Call) -> list[Tensor]:
    x, count = call.tensor(), len(call.node.output)
    axis = x.axis(int(call.get("axis", 0)))
    side = x.sides[axis]
    parts = call.integers(1, "split")
    if parts is None:
        size = -(-side // count)
        parts = [size] * (count - 1) + [side - size * (count - 1)]
    if sum(parts) != side or min(parts) < 1 or len(parts) != count:
        raise UnsupportedOperator(f"splits {side} into {parts}")
    ends = np.cumsum(parts)
    values = [
        rows.sliced(call, x.value, axis, int(end) - part, int(end))
        for part, end in zip(parts, ends, strict=True)
    ]
    return [x.of(value, call.shape(value)) for value in values]


def _gather(call: Call) -> Tensor:
    x, index = call.tensor(), call.constant(1, "the index")
    axis = x.axis(int(call.get("axis", 0)))
    if index.dtype.kind not in "iu" or index.ndim > 1 or index.size == 0:
        raise UnsupportedOperator(f"an index of shape {list(index.shape)} of {index.dtype}")
    side = x.sides[axis]
    flat = index.reshape(-1).astype(np.int64)
    if flat.min() < -side or flat.max() >= side:
        raise UnsupportedOperator(f"an index beyond {side} entries")
    flat = flat % side
    consecutive = flat.size == 1 or bool((np.diff(flat) == 1).all())
    if consecutive:
        value = rows.sliced(call, x.value, axis, int(flat[0]), int(flat[-1]) + 1)
    else:
        value = gathered(call, x.value, axis, flat)
    if index.ndim == 1:
        return x.of(value, call.shape(value))
    sides = (*x.sides[:axis], *x.sides[axis + 1 :])
    batch = x.batch
    if batch is not None and batch > axis:  # the axis that goes lies in front of the batch
        batch -= 1
    return Tensor(rows.reshaped(call, value, sides or (1,)), sides, batch)


# ---------------------------------------------------------------- more of the elements


def _concat(call: Call) -> Tensor:
    operands = call.operands()
    first = next(x for x in operands if isinstance(x, Tensor))
    axis = first.axis(int(call.get("axis", 0)))
    values = []
    for x in operands:
        if isinstance(x, Tensor):
            if x.batch != first.batch or len(x.sides) != len(first.sides):
                raise UnsupportedOperator("joins tensors whose batch is not the same axis")
            values.append(x.value)
            continue
        sides = list(x.shape)
        if len(sides) != first.rank or (first.batch is not None and sides.pop(first.batch) != 1):
            raise UnsupportedOperator("joins a constant that is another one for each image")
        values.append(rows.constant(call, x.reshape(sides)))
    value = rows.concatenated(call, values, axis)
    return first.of(value, call.shape(value))


def _expand(call: Call) -> Tensor:
    x, target = call.tensor(), call.integers(1, "shape") or []
    rank = max(x.rank, len(target))
    target = [1] * (rank - len(target)) + target
    own = [1] * (rank - x.rank) + x.shape(1)
    batch = None if x.batch is None else x.batch + rank - x.rank
    if batch is not None:
        if target.pop(batch) not in (1, call.walk.batch):
            raise UnsupportedOperator("repeats images of the batch")
        own.pop(batch)
    sides = tuple(np.broadcast_shapes(tuple(own), tuple(target)))
    value = rows.reshaped(call, x.value, own or [1])
    if sides != tuple(own):
        value = rows.emit(call, "expand", [value], shape=sides)
    return Tensor(value, sides, batch)


def _tile(call: Call) -> Tensor:
    x, repeats = call.tensor(), call.integers(1, "repeats") or []
    if len(repeats) != x.rank or min(repeats, default=1) < 1:
        raise UnsupportedOperator(f"repeats {repeats} of {x.rank} axes")
    value = x.value
    for dim, count in enumerate(repeats):
        if count == 1:
            continue
        axis = x.axis(dim)
        shape = tuple(call.shape(value))
        if shape[axis] == 1:
            wider = (*shape[:axis], count, *shape[axis + 1 :])
            value = rows.emit(call, "expand", [value], shape=wider)
        elif count > 64:
            raise UnsupportedOperator(f"repeats a side of {shape[axis]} {count} times: at most 64")
        else:
            value = rows.concatenated(call, [value] * count, axis)
    return x.of(value, call.shape(value))


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _pad(call: Call) -> Tensor:
    x = call.tensor()
    ends = call.integers(1, "pads") or []
    dims = call.integers(3, "axes") or list(range(x.rank))
    mode = call.get("mode", "constant")
    if len(ends) != 2 * len(dims) or mode not in _PAD_MODES:
        raise UnsupportedOperator(f"pads {ends} of {len(dims)} axes in mode {mode}")
    pairs = [(0, 0)] * len(x.sides)
    for dim, before, after in zip(dims, ends[: len(dims)], ends[len(dims) :], strict=True):
        if (before, after) != (0, 0):
            pairs[x.axis(dim)] = (before, after)
    filler = np.asarray(call.number(2, "value", 0.0) if mode == "constant" else 0.0)
    filler = rows.finite_for(call, filler, {"aten::max_pool2d"})
    number = rows.number(float(filler), "the value of the padding")
    value = padded(call, x.value, pairs, _PAD_MODES[mode], number)
    return x.of(value, call.shape(value))


TABLE: dict[str, Callable[[Call], Any]] = {
    "Concat": _concat,
    "Constant": _constant,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
