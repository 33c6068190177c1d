"""One table of nodes of every operator of version 2, each with torch's own function for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from kernelprune.format import Graph, Node, Value
from kernelprune.graph.ir import infer_shape

torch.set_num_threads(1)  # for tensors this small more threads only cost


@dataclass
class Case:
    """``oracle(*inputs, **tensors)`` takes torch tensors with the batch in front. ``shape``: what
    the node declares, for ops whose parameters do not tell."""

    op: str
    shapes: Sequence[tuple[int, ...]]
    params: dict[str, Any]
    oracle: Callable[..., torch.Tensor]
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    shape: tuple[int, ...] = ()

    def graph(self) -> Graph:
        """The node alone, whose inputs are a, b, ..."""
        names = "abcd"[: len(self.shapes)]
        inputs = [Value(name, shape) for name, shape in zip(names, self.shapes, strict=True)]
        shape = infer_shape(self.op, list(self.shapes), self.params, self.shape)
        node = Node(self.op, "y", list(names), "y", shape, dict(self.params))
        node.tensors = dict(self.tensors)
        return Graph(inputs or [Value("a", (1,))], ["y"], [node])

    def wanted(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.oracle(*inputs, **{k: torch.as_tensor(v) for k, v in self.tensors.items()})

    def __str__(self) -> str:
        shown = ",".join(f"{value}" for value in self.params.values())
        return f"{self.op}-{shown}-{'+'.join(map(str, self.shapes))}".replace(" ", "")


_RNG = np.random.default_rng(7)


def numbers(*shape: int) -> np.ndarray:
    return _RNG.standard_normal(shape)


def _unary(function: str, oracle: Callable[..., torch.Tensor], *values: float) -> Case:
    alpha, beta = (*values, 0.0, 0.0)[:2]
    params = {"function": function, "alpha": alpha, "beta": beta}
    return Case("unary", [(3, 4, 5)], params, oracle)


UNARY = [
    _unary("clamp", lambda x: x.clamp(-0.5, 0.75), -0.5, 0.75),
    _unary("clamp_min", lambda x: x.clamp(min=-0.5), -0.5),
    _unary("clamp_max", lambda x: x.clamp(max=0.25), 0.25),
    _unary("leaky_relu", lambda x: F.leaky_relu(x, 0.2), 0.2),
    _unary("elu", lambda x: F.elu(x, 1.5), 1.5),
    _unary("celu", lambda x: F.celu(x, 1.5), 1.5),
    _unary("selu", F.selu),
    _unary("silu", F.silu),
    _unary("gelu", F.gelu),
    _unary("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")),
    _unary("mish", F.mish),
    _unary("softplus", lambda x: F.softplus(x, 2.0, 1.0), 2.0, 1.0),
    _unary("hardswish", F.hardswish),
    _unary("hardsigmoid", F.hardsigmoid),
    _unary("sigmoid", torch.sigmoid),
    _unary("tanh", torch.tanh),
    _unary("exp", torch.exp),
    _unary("log", torch.log),
    _unary("sqrt", torch.sqrt),
    _unary("rsqrt", torch.rsqrt),
    _unary("reciprocal", torch.reciprocal),
    _unary("abs", torch.abs),
    _unary("neg", torch.neg),
    _unary("square", torch.square),
    _unary("pow", lambda x: x**3, 3.0),
    _unary("threshold", lambda x: F.threshold(x, 0.25, -2.0), 0.25, -2.0),
    _unary("hardshrink", lambda x: F.hardshrink(x, 0.75), 0.75),
    _unary("softshrink", lambda x: F.softshrink(x, 0.75), 0.75),
    _unary("erf", torch.erf),
    _unary("sin", torch.sin),
    _unary("cos", torch.cos),
    _unary("softsign", F.softsign),
    _unary("log_sigmoid", F.logsigmoid),
    _unary("sign", torch.sign),
]


def _binary(function: str, *shapes: tuple[int, ...]) -> Case:
    return Case("binary", shapes, {"function": function}, getattr(torch, function))


ARITHMETIC = [
    *(_binary(name, (3, 4, 5), (3, 4, 5)) for name in ("add", "sub", "mul", "div", "pow")),
    _binary("minimum", (3, 4, 5), (3, 1, 1)),
    _binary("maximum", (3, 1, 5), (1, 4, 5)),
    _binary("mul", (1, 4, 5), (6, 4, 5)),  # a spatial gate
    _binary("mul", (6,), (6,)),
    Case("binary", [(3, 4, 5), (3, 1, 5)], {"function": "mask"},
         lambda a, b: torch.where(b != 0, a, 0.0)),
    _binary("add", (2, 3, 4, 5), (2, 1, 4, 1)),
    Case("prelu", [(3, 4, 5)], {}, lambda x, slope: F.prelu(x, slope), {"slope": numbers(3)}),
    Case("prelu", [(6,)], {}, lambda x, slope: F.prelu(x, slope), {"slope": numbers(6)}),
    Case(
        "affine", [(3, 4, 5)], {},
        lambda x, scale, shift: x * scale[:, None, None] + shift[:, None, None],
        {"scale": numbers(3), "shift": numbers(3)},
    ),
    Case(
        "affine", [(4, 2)], {}, lambda x, scale, shift: x * scale[:, None] + shift[:, None],
        {"scale": numbers(4), "shift": numbers(4)},
    ),
    Case(
        "constant", [], {}, lambda x, value: value.expand(x.shape[0], 2, 3, 4),
        {"value": numbers(2, 3, 4)}, (2, 3, 4),
    ),
]  # fmt: skip


def _slice(shape: tuple[int, ...], axis: int, start: int, stop: int, step: int) -> Case:
    index = (slice(None),) * (axis + 1) + (slice(start, stop, step),)
    params = {"axis": axis, "start": start, "stop": stop, "step": step}
    return Case("slice", [shape], params, lambda x: x[index])


def _pad(
    shape: tuple[int, ...], ends: list[tuple[int, int]], mode: str, value: float = 0.0
) -> Case:
    """``ends``: of every axis; torch's function pads the last axes but the first two."""
    params: dict[str, Any] = {"before": [b for b, _ in ends], "after": [a for _, a in ends]}
    params.update(mode=mode, value=value)
    used = ends if mode == "constant" else ends[1:]
    flat = [side for end in reversed(used) for side in end]
    return Case("pad", [shape], params, lambda x: F.pad(x, flat, mode=mode, value=value))


def _gather(shape: tuple[int, ...], axis: int, index: list[int]) -> Case:
    shape_after = (*shape[:axis], len(index), *shape[axis + 1 :])
    tensors = {"index": np.array(index, np.uint32)}
    return Case(
        "gather", [shape], {"axis": axis},
        lambda x, index: x.index_select(axis + 1, index.long()), tensors, shape_after,
    )  # fmt: skip


def _reshape(before: tuple[int, ...], after: tuple[int, ...]) -> Case:
    return Case("reshape", [before], {}, lambda x: x.reshape(len(x), *after), shape=after)


def _expand(before: tuple[int, ...], after: tuple[int, ...]) -> Case:
    return Case("expand", [before], {}, lambda x: x.expand(len(x), *after), shape=after)


def _permute(shape: tuple[int, ...], *axes: int) -> Case:
    order = [0, *(axis + 1 for axis in axes)]
    return Case("permute", [shape], {"axes": list(axes)}, lambda x: x.permute(order))


MOVING = [
    _slice((8, 3, 4), 0, 2, 7, 1),
    _slice((8, 3, 4), 0, 1, 8, 3),
    _slice((3, 7, 4), 1, 1, 6, 2),
    _slice((9,), 0, 3, 4, 1),
    _slice((2, 3, 4, 5), 3, 0, 5, 4),
    _permute((3, 4, 5), 1, 2, 0),
    _permute((3, 4, 5), 0, 2, 1),
    _permute((3, 4), 1, 0),
    _permute((2, 3, 4, 5), 0, 3, 1, 2),
    _reshape((6, 4), (24,)),
    _reshape((6, 4), (2, 3, 4)),  # channels of x become parts of one
    _reshape((2, 3, 4), (6, 4)),  # a channel of x becomes several
    _reshape((4, 9), (6, 6)),  # neither
    _reshape((5,), (5, 1, 1)),
    _expand((3, 1, 1), (3, 4, 5)),
    _expand((1, 4), (6, 4)),
    _gather((6, 3), 0, [5, 1, 1, 0]),
    _gather((3, 4, 5), 2, [4, 0, 0]),
    _pad((3, 4, 5), [(0, 0), (1, 2), (0, 3)], "constant", 0.5),
    _pad((3, 4, 5), [(2, 1), (0, 0), (0, 0)], "constant"),  # channels
    _pad((3, 4, 5), [(1, 0), (1, 0), (0, 1)], "constant", -1.0),
    _pad((3, 4, 5), [(0, 0), (3, 2), (1, 4)], "reflect"),
    _pad((3, 4, 5), [(0, 0), (6, 2), (0, 9)], "replicate"),
    _pad((3, 4, 5), [(0, 0), (4, 1), (5, 0)], "circular"),
    _pad((3, 6), [(0, 0), (2, 5)], "reflect"),
    Case("depth_to_space", [(12, 2, 3)], {"block": 2}, lambda x: F.pixel_shuffle(x, 2)),
    Case("depth_to_space", [(9, 2, 1)], {"block": 3}, lambda x: F.pixel_shuffle(x, 3)),
    Case("space_to_depth", [(3, 4, 6)], {"block": 2}, lambda x: F.pixel_unshuffle(x, 2)),
]  # fmt: skip


def _resize(
    mode: str, shape: tuple[int, ...], size: list[int] | None, scale: list[float], align: bool
) -> Case:
    """By ``size``, or by ``scale``."""
    torch_mode = mode.replace("_", "-")
    options: dict[str, Any] = {"mode": torch_mode}
    if not mode.startswith("nearest"):
        options["align_corners"] = align
    options.update({"size": size} if size else {"scale_factor": scale})
    params = {"mode": mode, "align_corners": align, "scale": [0, 0] if size else scale}
    declared = (shape[0], *size) if size else ()
    return Case("resize", [shape], params, lambda x: F.interpolate(x, **options), shape=declared)


RESIZE = [
    _resize(mode, (2, 5, 7), size, scale, align)
    for mode in ("nearest", "nearest_exact", "bilinear", "bicubic")
    for size, scale in (([10, 14], []), ([3, 9], []), (None, [2.0, 2.0]), (None, [0.7, 1.3]))
    for align in ((False,) if mode.startswith("nearest") or scale else (False, True))
] + [_resize("bilinear", (2, 5, 7), [1, 1], [], True)]


def _reduce(shape: tuple[int, ...], function: str, axes: list[int], keepdim: bool) -> Case:
    whole = not keepdim and len(axes) == len(shape)
    own = torch.linalg.vector_norm if function == "l2" else getattr(torch, function)
    params = {"function": function, "axes": axes, "keepdim": keepdim}

    def oracle(x: torch.Tensor) -> torch.Tensor:
        found = own(x, dim=[axis + 1 for axis in axes], keepdim=keepdim)
        return found.reshape(-1, 1) if whole else found

    return Case("reduce", [shape], params, oracle)


def _argmax(shape: tuple[int, ...], axis: int, keepdim: bool) -> Case:
    def oracle(x: torch.Tensor) -> torch.Tensor:
        found = x.argmax(axis + 1, keepdim).double()
        return found.reshape(-1, 1) if found.dim() == 1 else found

    return Case("argmax", [shape], {"axis": axis, "keepdim": keepdim}, oracle)


def _layer_norm(shape: tuple[int, ...], axis: int) -> Case:
    tensors = {"scale": numbers(shape[axis]), "shift": numbers(shape[axis])}

    def oracle(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        last = F.layer_norm(x.movedim(axis + 1, -1), (shape[axis],), scale, shift, 1e-3)
        return last.movedim(-1, axis + 1)

    return Case("layer_norm", [shape], {"axis": axis, "eps": 1e-3}, oracle, tensors)


def _group_norm(shape: tuple[int, ...], groups: int) -> Case:
    tensors = {"scale": numbers(shape[0]), "shift": numbers(shape[0])}
    return Case(
        "group_norm", [shape], {"groups": groups, "eps": 1e-3},
        lambda x, scale, shift: F.group_norm(x, groups, scale, shift, 1e-3), tensors,
    )  # fmt: skip


def _matmul(a: tuple[int, ...], b: tuple[int, ...], first: bool, second: bool) -> Case:
    params = {"transpose_a": first, "transpose_b": second}
    return Case(
        "matmul", [a, b], params, lambda a, b: (a.mT if first else a) @ (b.mT if second else b)
    )


def _along(op: str, shape: tuple[int, ...], axis: int) -> Case:
    return Case(op, [shape], {"axis": axis}, lambda x: getattr(F, op)(x, dim=axis + 1))


def _adaptive(op: str, shape: tuple[int, ...], *size: int) -> Case:
    return Case(op, [shape], {"size": list(size)}, lambda x: getattr(F, op)(x, size))


REDUCING = [
    *(_reduce((4, 3, 5), name, [1, 2], False) for name in ("mean", "sum", "amax", "amin", "l2")),
    _reduce((4, 3, 5), "mean", [0], True),
    _reduce((4, 3, 5), "sum", [0, 1, 2], False),
    _reduce((4, 3, 5), "l2", [0, 2], False),
    _reduce((2, 3, 4, 5), "amax", [3], True),
    _reduce((6,), "mean", [0], False),
    _argmax((5, 3, 4), 0, False),
    _argmax((5, 3, 4), 1, True),
    _argmax((5,), 0, False),
    *(_adaptive("adaptive_avg_pool2d", (3, 7, 5), *size) for size in ((3, 2), (9, 5), (1, 1))),
    *(_adaptive("adaptive_max_pool2d", (3, 7, 5), *size) for size in ((3, 2), (9, 5))),
    _group_norm((6, 3, 4), 2),
    _group_norm((6, 3, 4), 6),
    _group_norm((6, 3, 4), 1),
    _group_norm((4, 7), 2),
    _layer_norm((6, 3, 4), 0),
    _layer_norm((5, 4), 1),
    _layer_norm((2, 3, 4, 5), 2),
    *(
        Case("l2_normalize", [shape], {"axis": axis, "eps": 1e-3},
             lambda x, axis=axis: F.normalize(x, dim=axis + 1, eps=1e-3))
        for shape, axis in (((6, 3, 4), 0), ((5, 4), 1))
    ),
    _along("softmax", (4, 3, 5), 2),
    _along("softmax", (4, 3, 5), 0),
    _along("log_softmax", (4, 3, 5), 0),
    _along("log_softmax", (4, 5), 1),
    _matmul((3, 4), (4, 5), False, False),
    _matmul((4, 3), (5, 4), True, True),
    _matmul((6, 3, 4), (6, 5, 4), False, True),
    _matmul((1, 3, 4), (6, 4, 5), False, False),
    _matmul((2, 3, 4, 5), (2, 1, 4, 6), True, False),
]  # fmt: skip

CASES = UNARY + ARITHMETIC + MOVING + RESIZE + REDUCING


def needs_positive(case: Case) -> bool:
    """Whether its function is undefined, or near a pole, for some other numbers."""
    return case.params.get("function") in ("log", "sqrt", "rsqrt", "pow", "div", "reciprocal")


def images(case: Case, count: int, seed: int = 0) -> list[torch.Tensor]:
    """Random inputs [count, ...] in float64; positive ones where a function needs them."""
    rng = np.random.default_rng(seed)
    positive = needs_positive(case)
    found = []
    for value in case.graph().inputs:
        array = rng.standard_normal((count, *value.shape))
        found.append(torch.from_numpy(np.abs(array) + 0.5 if positive else array))
    return found
