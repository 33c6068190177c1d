"""Resize, and Upsample, which came before it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.onnx.call import Call
from kernelprune.frontends.onnx.values import Tensor
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.gather import gathered


def _upsample(call: Call) -> Tensor:
    scales = call.get("scales") if not call.has(1) else call.weight(1, "the scales").reshape(-1)
    if scales is None:
        raise UnsupportedOperator("an upsample without scales")
    factors = [float(scale) for scale in scales]
    return _resized(call, factors, None, call.get("mode", "nearest"), "asymmetric")


def _resize(call: Call) -> Tensor:
    if call.opset < 11:
        scales = [float(s) for s in call.weight(1, "the scales").reshape(-1)]
        return _resized(call, scales, None, call.get("mode", "nearest"), "asymmetric")
    if call.get("antialias", 0) or call.get("exclude_outside", 0):
        raise UnsupportedOperator("antialias or exclude_outside")
    if call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedOperator("keep_aspect_ratio_policy")
    sizes = None
    if call.has(2) and call.constant(2, "the scales").size:
        given = [float(s) for s in call.constant(2, "the scales").reshape(-1)]
    elif call.has(3):
        given = None
        sizes = [int(side) for side in call.constant(3, "the sizes").reshape(-1)]
    else:
        raise UnsupportedOperator("a resize without scales and sizes")
    transform = call.get("coordinate_transformation_mode", "half_pixel")
    return _resized(call, given, sizes, call.get("mode", "nearest"), transform)


def _resized(
    call: Call, scales: list[float] | None, sizes: list[int] | None, mode: str, transform: str
) -> Tensor:
    x = call.tensor()
    dims = [int(dim) for dim in call.get("axes") or range(x.rank)]
    given = scales if scales is not None else sizes
    if given is None or len(given) != len(dims):
        raise UnsupportedOperator(f"{len(given or [])} scales for {len(dims)} axes")
    factors, wanted = [0.0] * len(x.sides), list(x.sides)
    for dim, number in zip(dims, given, strict=True):
        if x.place(dim) == x.batch:
            if number not in (1, call.walk.batch):
                raise UnsupportedOperator("resizes the batch")
            continue
        axis = x.axis(dim)
        if scales is not None:
            wanted[axis] = math.floor(x.sides[axis] * np.float32(number))
            factors[axis] = float(number)
        else:
            wanted[axis] = int(number)
    if min(wanted) < 1 or len(x.sides) < 2 or x.batch != 0:
        raise UnsupportedOperator(f"resizes {list(x.sides)} per image to {wanted}")
    if wanted == list(x.sides):
        return x
    if mode == "nearest":
        return _nearest(call, x, wanted, factors, transform)
    return _interpolated(call, x, wanted, factors, mode, transform)


def _places(call: Call, transform: str, side: int, wanted: int, factor: float) -> np.ndarray:
    """int64 [wanted]: the entry that each of the result is, rounded as ONNX does."""
    out = np.arange(wanted, dtype=np.float64)
    scale = factor or wanted / side
    if transform == "half_pixel_symmetric":
        adjustment = wanted / (scale * side)
        at = side / 2 * (1 - adjustment) + (out + 0.5) / scale - 0.5
    elif transform in ("half_pixel", "pytorch_half_pixel"):
        at = (out + 0.5) / scale - 0.5
        if transform == "pytorch_half_pixel" and wanted == 1:
            at = np.zeros(1)
    elif transform == "align_corners":
        at = out * ((side - 1) / (wanted - 1)) if wanted > 1 else out
    elif transform == "asymmetric":
        at = out / scale
    else:
        raise UnsupportedOperator(f"coordinate_transformation_mode {transform}")
    modern = call.opset >= 11 and call.operator == "Resize"
    # Before opset 11 the next lower one was taken, the next higher one when it gets smaller.
    older = "floor" if scale >= 1 else "ceil"
    rounding = call.get("nearest_mode", "round_prefer_floor") if modern else older
    rounded = {
        "round_prefer_floor": lambda: np.ceil(at - 0.5),
        "round_prefer_ceil": lambda: np.floor(at + 0.5),
        "floor": lambda: np.floor(at),
        "ceil": lambda: np.ceil(at),
    }.get(rounding)
    if rounded is None:
        raise UnsupportedOperator(f"nearest_mode {rounding}")
    return np.clip(rounded(), 0, side - 1).astype(np.int64)


def _nearest(
    call: Call, x: Tensor, wanted: list[int], factors: list[float], transform: str
) -> Tensor:
    """The op of the engine where it takes the same entries, else one gather for each axis."""
    places = [
        _places(call, transform, side, want, factor)
        for side, want, factor in zip(x.sides, wanted, factors, strict=True)
    ]
    same = all(
        (at == np.arange(side)).all()
        for at, side in zip(places[:1], x.sides, strict=False)
        if at.size == side
    )
    if len(x.sides) == 3 and wanted[0] == x.sides[0] and same:
        for mode, shift in (("nearest", 0.0), ("nearest_exact", 0.5)):
            expected = [
                np.minimum(np.floor((np.arange(want) + shift) * (side / want)), side - 1)
                for side, want in zip(x.sides[1:], wanted[1:], strict=True)
            ]
            if all((at == want).all() for at, want in zip(places[1:], expected, strict=True)):
                return _op(call, x, mode, False, _own_scale(x, wanted, factors), wanted)
    value = x.value
    for axis, at in enumerate(places):
        if at.size != x.sides[axis] or (at != np.arange(at.size)).any():
            value = gathered(call, value, axis, at)
    return x.of(value, call.shape(value))


def _own_scale(x: Tensor, wanted: list[int], factors: list[float]) -> list[float]:
    """Scales for the op: what lets it be resized by a factor whatever the map's size; 0, the ratio
    of the sides, where rounding would give another side or step."""
    found = []
    for side, want, factor in zip(x.sides[1:], wanted[1:], factors[1:], strict=True):
        exact = factor > 0 and side * factor == want
        found.append(factor if exact else 0.0)
    return found if all(found) else [0.0, 0.0]


def _interpolated(
    call: Call, x: Tensor, wanted: list[int], factors: list[float], mode: str, transform: str
) -> Tensor:
    kind = {"linear": "bilinear", "cubic": "bicubic"}.get(mode)
    if kind is None or len(x.sides) not in (2, 3) or wanted[0] != x.sides[0]:
        raise UnsupportedOperator(f"mode {mode} of {len(x.sides)} axes, or over the channels")
    if kind == "bicubic" and (
        len(x.sides) != 3 or not math.isclose(call.get("cubic_coeff_a", -0.75), -0.75)
    ):
        raise UnsupportedOperator("cubic_coeff_a that is not -0.75, or of one axis")
    same = all(want == side for want, side in zip(wanted[1:], x.sides[1:], strict=True))
    aligned = transform == "align_corners"
    single = [w for w in wanted[1:] if w == 1]
    known = transform == "half_pixel" or aligned or same
    if transform == "pytorch_half_pixel" and not single:
        known = True
    if transform == "half_pixel_symmetric" and all(
        not factor or factor * side == want
        for side, want, factor in zip(x.sides, wanted, factors, strict=True)
    ):
        known = True
    if not known:
        raise UnsupportedOperator(f"coordinate_transformation_mode {transform} in mode {mode}")
    given = (
        x
        if len(x.sides) == 3
        else x.of(
            rows.reshaped(call, x.value, (x.sides[0], 1, x.sides[1])), (x.sides[0], 1, x.sides[1])
        )
    )
    shape = wanted if len(wanted) == 3 else [wanted[0], 1, wanted[1]]
    scale = [0.0, 0.0]
    if not aligned:
        own = factors if len(factors) == 3 else [0.0, 1.0, factors[1]]
        rounded = [f * s != w for s, w, f in zip(given.sides[1:], shape[1:], own[1:], strict=True)]
        scale = _own_scale(given, shape, own)
        if any(f and r for f, r in zip(own[1:], rounded, strict=True)):
            sides = zip(given.sides[1:], shape[1:], own[1:], strict=True)
            scale = [factor or want / side for side, want, factor in sides]
    found = _op(call, given, kind, aligned, scale, shape)
    if len(x.sides) == 3:
        return found
    return x.of(rows.reshaped(call, found.value, wanted), wanted)


def _op(
    call: Call, x: Tensor, mode: str, aligned: bool, scale: list[float], wanted: list[int]
) -> Tensor:
    params: dict[str, Any] = {"mode": mode, "align_corners": aligned, "scale": scale}
    value = rows.emit(call, "resize", [x.value], params, shape=tuple(wanted))
    if call.shape(value) != tuple(wanted):
        raise UnsupportedOperator(f"resizes to {wanted} with the scales {scale}")
    return x.of(value, wanted)


TABLE = {"Resize": _resize, "Upsample": _upsample}
