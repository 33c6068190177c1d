"""unary: one function of every element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import FormatError, UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Op, Parameter, Row, Shape, as_module

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946

_erf: Callable[[np.ndarray], np.ndarray] = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def _softplus(x: np.ndarray, beta: float, threshold: float) -> np.ndarray:
    return np.where(x * beta > threshold, x, np.log1p(np.exp(np.minimum(x * beta, 700))) / beta)


def _threshold(x: np.ndarray, limit: float, value: float) -> np.ndarray:
    return np.where(x <= limit, value, x)


def _softshrink(x: np.ndarray, limit: float) -> np.ndarray:
    return np.where(x > limit, x - limit, np.where(x < -limit, x + limit, x * 0))


def _elu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


@dataclass(frozen=True)
class Function:
    """``compute(x, *numbers)`` in float64, NaN for NaN; ``numbers``: what alpha and beta are."""

    compute: Callable[..., np.ndarray]
    torch: Callable[..., Any]  # (torch, x, *numbers)
    numbers: tuple[str, ...] = ()


def _plain(name: str, compute: Callable[..., np.ndarray]) -> Function:
    return Function(compute, lambda torch, x: getattr(torch, name)(x))


def _functional(name: str, compute: Callable[..., np.ndarray], *numbers: str) -> Function:
    return Function(
        compute,
        lambda torch, x, *values: getattr(torch.nn.functional, name)(x, *values),
        numbers,
    )


FUNCTIONS: dict[str, Function] = {
    "clamp": Function(
        lambda x, low, high: np.minimum(np.maximum(x, low), high),
        lambda torch, x, low, high: torch.clamp(x, low, high),
        ("low", "high"),
    ),
    "clamp_min": Function(np.maximum, lambda torch, x, low: torch.clamp_min(x, low), ("low",)),
    "clamp_max": Function(np.minimum, lambda torch, x, high: torch.clamp_max(x, high), ("high",)),
    "leaky_relu": _functional("leaky_relu", lambda x, s: np.where(x > 0, x, s * x), "slope"),
    "elu": _functional("elu", _elu, "alpha"),
    "celu": _functional(
        "celu", lambda x, a: np.where(x > 0, x, a * np.expm1(np.where(x > 0, 0, x) / a)), "alpha"
    ),
    "selu": _functional("selu", lambda x: _SELU_SCALE * _elu(x, _SELU_ALPHA)),
    "silu": _functional("silu", lambda x: x * _sigmoid(x)),
    "gelu": _functional("gelu", lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2)))),
    "gelu_tanh": Function(
        _gelu_tanh, lambda torch, x: torch.nn.functional.gelu(x, approximate="tanh")
    ),
    "mish": _functional("mish", lambda x: x * np.tanh(_softplus(x, 1.0, 20.0))),
    "softplus": _functional("softplus", _softplus, "beta", "threshold"),
    "hardswish": _functional("hardswish", lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "hardsigmoid": _functional("hardsigmoid", lambda x: np.clip(x + 3, 0, 6) / 6),
    "sigmoid": _plain("sigmoid", _sigmoid),
    "tanh": _plain("tanh", np.tanh),
    "exp": _plain("exp", np.exp),
    "log": _plain("log", np.log),
    "sqrt": _plain("sqrt", np.sqrt),
    "rsqrt": _plain("rsqrt", lambda x: 1.0 / np.sqrt(x)),
    "reciprocal": _plain("reciprocal", lambda x: 1.0 / x),
    "abs": _plain("abs", np.abs),
    "neg": _plain("neg", np.negative),
    "square": _plain("square", np.square),
    "pow": Function(np.power, lambda torch, x, e: torch.pow(x, e), ("exponent",)),
    "threshold": _functional("threshold", _threshold, "threshold", "value"),
    "hardshrink": _functional(
        "hardshrink", lambda x, limit: np.where(np.abs(x) <= limit, 0, x), "limit"
    ),
    "softshrink": _functional("softshrink", _softshrink, "limit"),
    "erf": _plain("erf", _erf),
    "sin": _plain("sin", np.sin),
    "cos": _plain("cos", np.cos),
    "softsign": _functional("softsign", lambda x: x / (1 + np.abs(x))),
    "log_sigmoid": _functional("logsigmoid", lambda x: -_softplus(-x, 1.0, math.inf)),
    "sign": _plain("sign", np.sign),
}


# ---------------------------------------------------------------- rows


def _row(function: str, *arguments: str) -> Row:
    """``arguments``: where the call has the function's numbers."""

    def row(call: Any) -> str:
        rows.check_floating(call["self"])
        numbers = [rows.number(call[name], name) for name in arguments]
        return rows.unary(call, call.value(call["self"]), function, *numbers)

    return row


def _gelu(call: Any) -> str:
    function = "gelu_tanh" if call["approximate"] == "tanh" else "gelu"
    return rows.unary(call, call.value(call["self"]), function)


def _elu_row(call: Any) -> str:
    alpha, scale, steepness = (
        rows.number(call[name], name) for name in ("alpha", "scale", "input_scale")
    )
    x = call.value(call["self"])
    if (scale, steepness) == (1.0, 1.0):
        return rows.unary(call, x, "elu", alpha)
    if steepness == 1.0 and np.allclose([alpha, scale], [_SELU_ALPHA, _SELU_SCALE], rtol=1e-9):
        return rows.unary(call, x, "selu")
    if scale == 1.0 and alpha and math.isclose(steepness, 1.0 / alpha):
        return rows.unary(call, x, "celu", alpha)
    raise UnsupportedOperator("elu with a scale that is not selu's or celu's")


def clamped(call: Any, x: str, low: float | None, high: float | None) -> str:
    """``x`` within bounds, either of which may be missing or infinite."""
    low = None if low is None or low == -math.inf else rows.number(low, "the lower bound")
    high = None if high is None or high == math.inf else rows.number(high, "the upper bound")
    if low is None and high is None:
        return x
    if high is None:
        return rows.unary(call, x, "clamp_min", low or 0.0)
    if low is None:
        return rows.unary(call, x, "clamp_max", high)
    return rows.unary(call, x, "clamp", low, high)


def _clamp(call: Any) -> str:
    bounds = [
        call.get(name, call.get(other)) for name, other in (("min", "min_val"), ("max", "max_val"))
    ]
    if not all(b is None or isinstance(b, (int, float)) for b in bounds):
        raise UnsupportedOperator("bounds that are tensors")  # binary has a row for these
    rows.check_floating(call["self"])
    return clamped(call, call.value(call["self"]), *bounds)


def powered(call: Any, x: str, exponent: float) -> str:
    """x ** exponent, by the functions that torch uses for the usual ones."""
    special = {2: "square", 0.5: "sqrt", -1: "reciprocal", -0.5: "rsqrt"}
    if exponent == 1:
        return x
    if exponent in special:
        return rows.unary(call, x, special[exponent])
    return rows.unary(call, x, "pow", rows.number(exponent, "the exponent"))


def _pow(call: Any) -> str:
    if not isinstance(call["exponent"], (int, float)):
        raise UnsupportedOperator("an exponent that is no plain number")  # see binary
    rows.check_floating(call["self"])
    return powered(call, call.value(call["self"]), call["exponent"])


def _glu(call: Any) -> str:
    """First half of an axis * sigmoid of the second."""
    x = call.value(call["self"])
    axis = rows.axis_of(call["dim"], len(rows.torch_shape(call["self"])))
    side = call.shape(x)[axis]
    first = rows.sliced(call, x, axis, 0, side // 2)
    gate = rows.unary(call, rows.sliced(call, x, axis, side // 2, side), "sigmoid")
    return rows.binary(call, "mul", first, gate)


_SAME_NAME = (
    "selu silu mish hardswish hardsigmoid sigmoid tanh exp log sqrt rsqrt reciprocal abs neg square"
    " erf sin cos log_sigmoid sign"
).split()


def _rrelu(call: Any) -> str:
    """Its slope is random while it trains, and else the middle of its range."""
    if call["training"]:
        raise UnsupportedOperator("random slopes")
    rows.check_floating(call["self"])
    lower, upper = (rows.number(call[name], name) for name in ("lower", "upper"))
    return rows.unary(call, call.value(call["self"]), "leaky_relu", (lower + upper) / 2)


_NUMBERS = {
    "leaky_relu": ("negative_slope",),
    "celu": ("alpha",),
    "softplus": ("beta", "threshold"),
    "threshold": ("threshold", "value"),
    "hardshrink": ("lambd",),
    "softshrink": ("lambd",),
}


class Unary(Op):
    """``function`` of every element; FORMAT.md lists them with the numbers that they take."""

    name = "unary"
    elementwise = True
    parameters = (
        Parameter("function", "choice", choices=tuple(FUNCTIONS)),
        Parameter("alpha", "number"),
        Parameter("beta", "number"),
    )
    torch_rows = {
        **{k: r for name in _SAME_NAME for k, r in rows.rows([name], _row(name)).items()},
        **{
            k: r
            for name, a in _NUMBERS.items()
            for k, r in rows.rows([name], _row(name, *a)).items()
        },
        **rows.rows(["absolute"], _row("abs")),
        **rows.rows(["negative"], _row("neg")),
        **rows.rows(["gelu"], _gelu),
        **rows.rows(["elu"], _elu_row),
        **rows.rows(["clamp", "clip", "clamp_min", "clamp_max", "hardtanh"], _clamp),
        **rows.rows(["pow"], _pow),
        **rows.rows(["rrelu"], _rrelu),
        "aten::special_expit": _row("sigmoid"),
        "aten::special_erf": _row("erf"),
        "aten::glu": _glu,
    }

    def check(self, params: dict[str, Any], input_shapes: Sequence[Shape]) -> None:
        name = params["function"]
        unused = ("alpha", "beta")[len(FUNCTIONS[name].numbers) :]
        for role in unused:
            if params[role] != 0:
                raise FormatError(f"{role} is not 0, but {name} has no such number")
        if name in ("celu", "softplus") and params["alpha"] == 0:
            raise FormatError(f"alpha is 0, by which {name} divides")

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return input_shapes[0]

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        function = FUNCTIONS[node.params["function"]]
        with np.errstate(all="ignore"):
            found = function.compute(inputs[0], *self._numbers(node))
        return np.asarray(found, np.float64)

    def scales_with(self, node: Node) -> bool:
        return node.params["function"] in ("leaky_relu", "abs", "neg")

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        function, numbers = FUNCTIONS[node.params["function"]], self._numbers(node)
        return as_module(lambda x: function.torch(torch, x, *numbers))

    def _numbers(self, node: Node) -> list[float]:
        count = len(FUNCTIONS[node.params["function"]].numbers)
        return [float(node.params[role]) for role in ("alpha", "beta")[:count]]
