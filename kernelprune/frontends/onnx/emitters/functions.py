"""Functions of every element, and arithmetic of two values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from kernelprune.frontends.onnx.emitters.builder import Builder
from kernelprune.graph.ir import Node

# ONNX's operator that is one of ours, with the attributes that it takes.
_ONE_NODE: dict[str, tuple[str, tuple[str, ...]]] = {
    "leaky_relu": ("LeakyRelu", ("alpha",)),
    "elu": ("Elu", ("alpha",)),
    "celu": ("Celu", ("alpha",)),
    **{
        name.lower(): (name, ())
        for name in "Selu HardSwish Sigmoid Tanh Exp Log Sqrt Reciprocal Abs Neg Erf Sin Cos"
        " Softsign Sign".split()
    },
}

# Others as a chain of steps: operator, and what else it reads, numbers or "x", the value that the
# function is of. {0} and {1} stand for alpha and beta.
_Step = tuple[str, tuple[float | str, ...]]
_CHAINS: dict[str, Sequence[_Step]] = {
    "silu": (("Sigmoid", ()), ("Mul", ("x",))),
    "mish": (("Softplus", ()), ("Tanh", ()), ("Mul", ("x",))),
    "gelu": (
        ("Mul", (math.sqrt(0.5),)), ("Erf", ()), ("Add", (1.0,)), ("Mul", ("x",)), ("Mul", (0.5,)),
    ),
    "gelu_tanh": (
        ("Mul", ("x",)), ("Mul", (0.044715,)), ("Add", (1.0,)), ("Mul", ("x",)),
        ("Mul", (math.sqrt(2 / math.pi),)), ("Tanh", ()), ("Add", (1.0,)), ("Mul", ("x",)),
        ("Mul", (0.5,)),
    ),
    "softplus": (("Mul", ("alpha",)), ("Softplus", ()), ("Div", ("alpha",))),
    "log_sigmoid": (("Neg", ()), ("Softplus", ()), ("Neg", ())),
    "rsqrt": (("Sqrt", ()), ("Reciprocal", ())),
    "square": (("Mul", ("x",)),),
    "pow": (("Pow", ("alpha",)),),
    "clamp": (("Clip", ("alpha", "beta")),),
    "clamp_min": (("Max", ("alpha",)),),
    "clamp_max": (("Min", ("alpha",)),),
}  # fmt: skip


def _unary(build: Builder, node: Node) -> None:
    function, x, out = str(node.params["function"]), node.inputs[0], node.output
    if function == "threshold":
        limit, value = (
            build.constant(f"{out}:{role}", np.float32(node.params[role]))
            for role in ("alpha", "beta")
        )
        build.node("Where", [build.node("Greater", [x, limit], out), x, value], out, last=True)
        return
    if function == "hardsigmoid":
        build.node("HardSigmoid", [x], out, last=True, alpha=1 / 6, beta=0.5)
        return
    if function in _ONE_NODE:
        op, names = _ONE_NODE[function]
        numbers = {name: float(node.params[name]) for name in names}
        build.node(op, [x], out, last=True, **numbers)
        return
    value, chain = x, _CHAINS[function]
    for position, (op, operands) in enumerate(chain):
        more = [x if each == "x" else _number(build, node, each) for each in operands]
        value = build.node(op, [value, *more], out, last=position == len(chain) - 1)


def _number(build: Builder, node: Node, operand: float | str) -> str:
    number = node.params[operand] if isinstance(operand, str) else operand
    return build.constant(f"{node.output}:number", np.float32(number))


_BINARY = {
    "add": "Add",
    "div": "Div",
    "maximum": "Max",
    "minimum": "Min",
    "mul": "Mul",
    "pow": "Pow",
    "sub": "Sub",
}


def _binary(build: Builder, node: Node) -> None:
    function, (a, b), out = node.params["function"], node.inputs, node.output
    if function != "mask":
        build.node(_BINARY[function], [a, b], out, last=True)
        return
    zero = build.constant(f"{out}:zero", np.float32(0))
    build.node("Where", [build.node("Equal", [b, zero], out), zero, a], out, last=True)


def _add(build: Builder, node: Node) -> None:
    build.finish(node.inputs[0], node, node.inputs[1])


def _activation(build: Builder, node: Node) -> None:
    build.finish(node.inputs[0], node)


TABLE: dict[str, Callable[[Builder, Node], None]] = {
    "activation": _activation,
    "add": _add,
    "binary": _binary,
    "unary": _unary,
}
