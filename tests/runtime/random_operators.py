"""The nodes of random networks that only files of version 2 have.

Every method adds nodes and returns a value, or None where nothing fits. Functions that grow without
bound or are steep somewhere get numbers from where they are tame, so that rounding does not grow
through a network: what is compared are the kernels, not the conditioning of a random formula.
"""

from __future__ import annotations

import math

import numpy as np
from graphs import GraphBuilder

Shape = tuple[int, ...]

# Steep nowhere.
PLAIN = {
    "clamp": (-0.5, 1.25), "clamp_min": (-0.25,), "clamp_max": (0.75,), "leaky_relu": (0.1,),
    "elu": (1.5,), "celu": (0.7,), "selu": (), "silu": (), "gelu": (), "gelu_tanh": (), "mish": (),
    "softplus": (2.0, 20.0), "hardswish": (), "hardsigmoid": (), "sigmoid": (), "tanh": (),
    "abs": (), "neg": (), "threshold": (0.5, 0.5), "erf": (), "softsign": (), "log_sigmoid": (),
}  # fmt: skip
# After tanh, ...
BOUNDED = {"exp": (), "square": (), "sin": (), "cos": (), "pow": (3.0,)}
# ... or after a clamp to [0.3, 2].
POSITIVE = {"log": (), "sqrt": (), "rsqrt": (), "reciprocal": (), "pow": (-1.5,)}
GATES = ("sigmoid", "hardsigmoid", "tanh")


class MoreOperators:
    """Expects the choices and values of RandomNetwork."""

    rng: np.random.Generator
    b: GraphBuilder
    values: list[str]
    exact: set[str]  # values that no rounding has touched

    # --- helpers -------------------------------------------------------------------------------

    def shape(self, value: str) -> Shape:
        return self.b.shapes[value]

    def own(self, **tensors: np.ndarray) -> None:
        """Tensors of the last node."""
        for name, array in tensors.items():
            self.b.tensors[f"{self.b.nodes[-1]['name']}.{name}"] = array

    def moved(self, op: str, inputs: list[str], shape: Shape, **params) -> str | None:
        """A node that copies numbers."""
        if not self.fits(shape, 0):
            return None
        value = self.b.node(op, inputs, shape, **params)
        if self.exact.issuperset(inputs):
            self.exact.add(value)
        return value

    def axis(self, value: str) -> int:
        return int(self.rng.integers(len(self.shape(value))))

    def function(self, x: str, name: str, *numbers: float) -> str:
        alpha, beta = (*numbers, 0, 0)[:2]
        return self.b.node("unary", [x], self.shape(x), function=name, alpha=alpha, beta=beta)

    def constant(self, shape: Shape, array: np.ndarray) -> str:
        value = self.b.node("constant", [], shape)
        self.own(value=array.astype(np.float32))
        return value

    def near_one(self, count: Shape | int) -> np.ndarray:
        return self.rng.uniform(0.5, 1.5, count).astype(np.float32)

    def arithmetic(self, function: str, a: str, b: str) -> str | None:
        sides = zip(self.shape(a), self.shape(b), strict=True)
        shape = tuple(max(pair) for pair in sides)
        if not self.fits(shape, 0):
            return None
        return self.b.node("binary", [a, b], shape, function=function)

    def partner(self, x: str) -> str | None:
        """A value that goes with x in arithmetic: of an earlier node, reduced or constant."""
        shape = self.shape(x)
        ones = tuple(1 if self.chance(0.5) else side for side in shape)
        kind = int(self.rng.integers(3))
        if kind == 0:
            return self.constant(ones, self.b.rng.standard_normal(ones))
        if kind == 1:
            axes = sorted({int(a) for a in self.rng.integers(len(shape), size=2)})
            return self.reduced(x, "mean", axes, keepdim=True)
        return self.like(shape)

    def reduced(self, x: str, function: str, axes: list[int], *, keepdim: bool) -> str:
        shape = self.shape(x)
        sides = [1 if axis in axes else side for axis, side in enumerate(shape)]
        if not keepdim:
            sides = [side for axis, side in enumerate(shape) if axis not in axes] or [1]
        params = {"function": function, "axes": axes, "keepdim": keepdim}
        return self.b.node("reduce", [x], tuple(sides), **params)

    # --- of every element ----------------------------------------------------------------------

    def unary(self) -> str:
        return self.activated(self.value())

    def activated(self, x: str) -> str:
        if self.chance(0.7):
            name = self.pick(tuple(PLAIN))
            return self.function(x, name, *PLAIN[name])
        if self.chance(0.5):
            name = self.pick(tuple(BOUNDED))
            return self.function(self.function(x, "tanh"), name, *BOUNDED[name])
        name = self.pick(tuple(POSITIVE))
        return self.function(self.function(x, "clamp", 0.3, 2), name, *POSITIVE[name])

    def by_channel(self) -> str:
        return self.scaled(self.value())

    def scaled(self, x: str) -> str:
        """prelu, or the affine that a batch norm is."""
        shape = self.shape(x)
        op = self.pick(("prelu", "affine"))
        value = self.b.node(op, [x], shape)
        if op == "prelu":
            self.own(slope=self.rng.uniform(-0.2, 0.5, shape[0]).astype(np.float32))
        else:
            shift = self.rng.standard_normal(shape[0]).astype(np.float32)
            self.own(scale=self.near_one(shape[0]), shift=shift)
        return value

    def binary(self) -> str | None:
        x = self.value()
        other = self.partner(x)
        if other is None:
            return None
        function = self.pick(("add", "sub", "mul", "div", "minimum", "maximum", "pow"))
        if function == "mul":
            other = self.function(other, self.pick(GATES))
        elif function == "div":
            other = self.function(self.function(other, "tanh"), "exp")
        elif function == "pow":
            x, other = self.function(x, "clamp", 0.3, 2), self.function(other, "tanh")
        swap = function in ("add", "sub", "mul", "minimum", "maximum") and self.chance(0.3)
        return self.arithmetic(function, *((other, x) if swap else (x, other)))

    def fused(self) -> str | None:
        """A convolution with what often follows it."""
        x = self.conv2d()
        return x and self.pick((self.activated, self.activated, self.scaled))(x)

    def gate(self) -> str | None:
        """Squeeze and excitation."""
        x = self.value(3)
        if x is None:
            return None
        channels = self.shape(x)[0]
        hidden = max(channels // 4, 1)
        y = self.b.node("global_avg_pool", [x], (channels, 1, 1))
        y = self.b.conv2d(y, hidden, (1, 1), activation=self.pick(("relu", "none")))
        y = self.function(y, "silu") if self.chance(0.3) else y
        y = self.b.conv2d(y, channels, (1, 1))
        y = self.function(y, self.pick(GATES))
        return self.arithmetic("mul", *((x, y) if self.chance(0.7) else (y, x)))

    # --- moving --------------------------------------------------------------------------------

    def slice(self) -> str | None:
        x = self.value()
        axis = self.axis(x)
        side = self.shape(x)[axis]
        start = int(self.rng.integers(side))
        stop = int(self.rng.integers(start + 1, side + 1))
        return self.sliced(x, axis, start, stop, int(self.pick((1, 1, 1, 2, 3))))

    def sliced(self, x: str, axis: int, start: int, stop: int, step: int = 1) -> str | None:
        shape = list(self.shape(x))
        shape[axis] = math.ceil((stop - start) / step)
        return self.moved("slice", [x], tuple(shape), axis=axis, start=start, stop=stop, step=step)

    def split(self) -> str | None:
        """Both halves of the channels, one of which goes another way, as in shuffle nets."""
        x = self.value(3)
        if x is None or self.shape(x)[0] < 2:
            return None
        shape = self.shape(x)
        half = shape[0] // 2
        first, second = self.sliced(x, 0, 0, half), self.sliced(x, 0, half, shape[0])
        if first is None or second is None:
            return None
        way = self.activated(second) if self.chance(0.7) else second
        return self.moved("concat", [first, way], shape)

    def shuffle(self) -> str | None:
        """A gather, which mostly shuffles channels."""
        x = self.value()
        axis = 0 if self.chance(0.7) else self.axis(x)
        shape = list(self.shape(x))
        index = self.rng.permutation(shape[axis])
        if self.chance(0.3):
            index = self.rng.integers(shape[axis], size=int(self.rng.integers(1, 9)))
        shape[axis] = len(index)
        value = self.moved("gather", [x], tuple(shape), axis=axis)
        if value is not None:
            self.own(index=index.astype(np.uint32))
        return value

    def permute(self) -> str | None:
        x = self.value()
        axes = [int(axis) for axis in self.rng.permutation(len(self.shape(x)))]
        return self.moved("permute", [x], tuple(self.shape(x)[a] for a in axes), axes=axes)

    def reshape(self) -> str | None:
        x = self.value()
        rest, sides = int(np.prod(self.shape(x))), []
        for _ in range(int(self.rng.integers(4))):
            divisors = [d for d in range(1, min(rest, 64) + 1) if rest % d == 0]
            sides.append(self.pick(divisors))
            rest //= sides[-1]
        order = self.rng.permutation(len(sides) + 1)
        return self.moved("reshape", [x], tuple([*sides, rest][i] for i in order))

    def expand(self) -> str | None:
        x = self.value()
        shape = self.shape(x)
        if 1 not in shape:
            shape = self.shape(x := self.reduced(x, "mean", [self.axis(x)], keepdim=True))
        sides = tuple(int(self.rng.integers(1, 9)) if side == 1 else side for side in shape)
        return self.moved("expand", [x], sides)

    def pad(self) -> str | None:
        x = self.value()
        shape = self.shape(x)
        mode = self.pick(("constant", "reflect", "replicate", "circular"))
        ends = []
        for side in (*shape, *shape):
            most = {"reflect": side - 1, "circular": side}.get(mode, 4)
            ends.append(int(self.rng.integers(min(most, 4) + 1)) if self.chance(0.6) else 0)
        before, after = ends[: len(shape)], ends[len(shape) :]
        sides = tuple(b + side + a for b, side, a in zip(before, shape, after, strict=True))
        value = float(self.pick((0, 0, -1.5))) if mode == "constant" else 0
        params = {"before": before, "after": after, "mode": mode, "value": value}
        return self.moved("pad", [x], sides, **params)

    def concat_anywhere(self) -> str | None:
        x = self.value()
        shape, axis = self.shape(x), self.axis(x)

        def rest(value: str) -> Shape:
            sides = self.shape(value)
            return (len(sides), *sides[:axis], *sides[axis + 1 :])

        others = [v for v in self.values if rest(v) == rest(x)]
        parts = [x, *(self.pick(others) for _ in range(int(self.rng.integers(1, 3))))]
        side = sum(self.shape(v)[axis] for v in parts)
        return self.moved("concat", parts, (*shape[:axis], side, *shape[axis + 1 :]), axis=axis)

    def blocks(self) -> str | None:
        """Pixels become channels, or channels pixels."""
        x = self.value(3)
        block = int(self.pick((2, 2, 3)))
        if x is None:
            return None
        channels, height, width = self.shape(x)
        if channels % block**2 == 0 and self.chance(0.7):
            shape = (channels // block**2, height * block, width * block)
            return self.moved("depth_to_space", [x], shape, block=block)
        if height % block or width % block:
            return None
        shape = (channels * block**2, height // block, width // block)
        return self.moved("space_to_depth", [x], shape, block=block)

    # --- sampling ------------------------------------------------------------------------------

    def resize(self) -> str | None:
        x = self.value(3)
        if x is None:
            return None
        channels, *sides = self.shape(x)
        mode = self.pick(("nearest", "nearest_exact", "bilinear", "bicubic"))
        scale = [float(self.pick((0, 0, 2, 2, 0.5, 1.3))) for _ in sides]
        out = [int(side * s) if s else self.extent() for side, s in zip(sides, scale, strict=True)]
        if not self.fits((channels, *out), 16 * channels * out[0] * out[1]):
            return None
        align = mode.startswith("bi") and self.chance(0.4)
        shape = (channels, *out)
        return self.b.node("resize", [x], shape, mode=mode, align_corners=align, scale=scale)

    def adaptive_pool(self) -> str | None:
        x = self.value(3)
        if x is None:
            return None
        channels, *sides = self.shape(x)
        size = [int(self.rng.integers(1, side + 2)) for side in sides]
        if not self.fits((channels, *size), 4 * int(np.prod(self.shape(x)))):
            return None
        op = self.pick(("adaptive_avg_pool2d", "adaptive_max_pool2d"))
        return self.b.node(op, [x], (channels, *size), size=size)

    # --- over axes -----------------------------------------------------------------------------

    def norm(self) -> str:
        x = self.value()
        shape = self.shape(x)
        op = self.pick(("group_norm", "group_norm", "layer_norm", "l2_normalize"))
        axis, eps = self.axis(x), float(self.pick((0.05, 0.2)))
        if op == "l2_normalize":
            return self.b.node(op, [x], shape, axis=axis, eps=0.5)
        if op == "layer_norm":
            value = self.b.node(op, [x], shape, axis=axis, eps=eps)
        else:
            groups = self.pick([g for g in range(1, shape[0] + 1) if shape[0] % g == 0])
            value, axis = self.b.node(op, [x], shape, groups=groups, eps=eps), 0
        side = shape[axis]
        shift = self.rng.standard_normal(side).astype(np.float32)
        self.own(scale=self.near_one(side), shift=shift)
        return value

    def soft(self) -> str:
        x = self.value()
        op = self.pick(("softmax", "log_softmax"))
        return self.b.node(op, [x], self.shape(x), axis=self.axis(x))

    def reduce(self) -> str:
        x = self.value()
        rank = len(self.shape(x))
        axes = sorted({int(a) for a in self.rng.integers(rank, size=int(self.rng.integers(1, 4)))})
        function = self.pick(("mean", "sum", "amax", "amin", "l2"))
        keepdim = self.chance(0.5)
        if function == "sum":  # whose result would be large
            count = math.prod(self.shape(x)[axis] for axis in axes)
            ones = (1,) * rank
            x = self.b.node(
                "binary", [x, self.constant(ones, np.full(ones, 1 / count))], self.shape(x),
                function="mul",
            )  # fmt: skip
        return self.reduced(x, function, axes, keepdim=keepdim)

    def argmax(self) -> str | None:
        """Of exact numbers: rounding would decide between two that are nearly equal."""
        found = [v for v in self.values if v in self.exact]
        if not found:
            return None
        x = self.pick(found)
        axis, keepdim = self.axis(x), self.chance(0.5)
        shape = list(self.shape(x))
        shape[axis] = 1
        sides = tuple(shape) if keepdim else tuple(shape[:axis] + shape[axis + 1 :]) or (1,)
        value = self.b.node("argmax", [x], sides, axis=axis, keepdim=keepdim)
        # As large as the sides: brought near one for what comes behind.
        small = self.constant((1,) * len(sides), np.full((1,) * len(sides), 0.0625))
        return self.arithmetic("mul", value, small)

    def attention(self) -> str | None:
        """softmax(q k) v, whose parts are slices of one value, as tokens in rows or in columns."""
        x = self.value()
        shape = self.shape(x)
        rows, columns = shape[0], int(np.prod(shape[1:]))
        if rows * columns > 2000 or not self.fits((rows, rows), 2 * rows * rows * columns):
            return None
        tokens = self.moved("reshape", [x], (rows, columns))
        heads = [h for h in (1, 2, 3) if columns % h == 0]
        if self.chance(0.5):
            head = self.pick(heads)
            tokens = self.moved("reshape", [tokens], (rows, head, columns // head))
            tokens = self.moved("permute", [tokens], (head, rows, columns // head), axes=[1, 0, 2])
        *lead, rows, columns = self.shape(tokens)
        other = self.function(tokens, "tanh")
        shape, across = (*lead, rows, rows), {"transpose_a": False, "transpose_b": True}
        scores = self.b.node("matmul", [tokens, other], shape, **across)
        ones = (1,) * len(shape)
        scale = self.constant(ones, np.full(ones, columns**-0.5))
        scores = self.b.node("binary", [scores, scale], shape, function="mul")
        scores = self.b.node("softmax", [scores], shape, axis=len(shape) - 1)
        flip = self.chance(0.3)
        return self.b.node(
            "matmul", [scores, tokens], (*lead, rows, columns),
            transpose_a=flip, transpose_b=False,
        )  # fmt: skip
