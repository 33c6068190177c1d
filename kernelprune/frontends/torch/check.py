"""check: what of a model the engine will run, and what not, before anybody trains it."""

from __future__ import annotations

import textwrap
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kernelprune.errors import FormatError, ShapeError, UnsupportedWarning
from kernelprune.frontends.refusal import NO_COUNTERPART, Refusal, grouped, places
from kernelprune.frontends.torch.accepted import check_inputs, unwrapped
from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.frontends.torch.trace import trace_all
from kernelprune.graph import passes
from kernelprune.graph.ir import Graph
from kernelprune.graph.rounded import round_to_bytes
from kernelprune.graph.validate import check_graph
from kernelprune.text import plain

_WIDTH = 80
_MAX_GROUPS = 20


@dataclass
class Check:
    """True when the engine will run the model. ``print(check)`` shows it in 80 columns.

    ``unsupported``: every call of an operator that has no counterpart, with the reason, the module
    that makes it and the model's source line. ``fault``: what else keeps the model out of a file.
    ``operators``: how many nodes of each op there are, as a file has them (as traced, when there
    are unsupported ones), the most frequent first. ``connections`` and ``macs`` (multiply-adds per
    image): dense, without dead channels. ``inputs`` and ``outputs``: their names and shapes per
    image. ``layers``: how many have weights, ``integer_layers`` how many of them are quantised.
    """

    model: str
    operators: dict[str, int]
    connections: int
    macs: int
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    unsupported: list[Refusal] = field(default_factory=list)
    fault: str | None = None
    layers: int = 0
    integer_layers: int = 0

    def __bool__(self) -> bool:
        return not self.unsupported and self.fault is None

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        state = "will run" if self else "cannot run as it is"
        lines = _wrapped(f"{self.model}: the engine {state}")
        for name, values in (("inputs", self.inputs), ("outputs", self.outputs)):
            lines += _wrapped(f"{name}: " + ", ".join(f"{v} {list(s)}" for v, s in values.items()))
        nodes = ", ".join(f"{count} {op}" for op, count in self.operators.items() if op != "opaque")
        lines += _wrapped(f"nodes: {nodes or 'none'}")
        lines += _wrapped(
            f"connections: {self.connections:,}; multiply-adds per image: {self.macs:,}"
        )
        if self.integer_layers:
            lines += _wrapped(f"int8: {self.integer_layers} of {self.layers} layers")
        if self.fault is not None:
            lines += _wrapped(f"fault: {self.fault}")
        if self.unsupported:
            lines += ["", "unsupported:"]
        groups = grouped(self.unsupported)
        for group in groups[:_MAX_GROUPS]:
            lines += _group(group)
        if len(groups) > _MAX_GROUPS:
            lines.append(f"  and {len(groups) - _MAX_GROUPS} more")
        return lines


def check(model: nn.Module, x: torch.Tensor | tuple[torch.Tensor, ...]) -> Check:
    """What of ``model`` the engine will run, and what it will not and why.

    ``x``: an example input ``[N, ...]``, or a tuple of them, as for export. Takes seconds, and
    trains and writes nothing. Raises Error when torch.export cannot trace the model at all, with
    what is to be changed in it.
    """
    model = unwrapped(model)
    refusals: list[Refusal] = []
    fault = None
    if isinstance(model, GraphModel):  # such as a quantised one: what a file holds
        model.run(check_inputs(x))
        graph = model.graph
    else:
        graph, refusals = trace_all(model, x)
        fault = None if refusals else _lowered(graph)
    shapes = graph.shapes()
    operators = Counter(node.op for node in graph.nodes)
    return Check(
        model=type(model).__name__,
        operators=dict(operators.most_common()),
        connections=graph.all_connections(),
        macs=graph.macs(dense=True),
        inputs={value.name: value.shape for value in graph.inputs},
        outputs=_named(graph, shapes),
        unsupported=refusals,
        fault=fault,
        layers=sum(node.has_weight() for node in graph.nodes),
        integer_layers=sum(node.weight_scale is not None for node in graph.nodes),
    )


def warn_of(refusals: Sequence[Refusal], stacklevel: int) -> None:
    """Warns whoever prunes a model that the engine will refuse it; ``stacklevel`` as that of
    warnings.warn, for the caller of this."""
    if not refusals:
        return
    names = list(dict.fromkeys(refusal.operator for refusal in refusals))
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    warnings.warn(
        f"the engine cannot run {shown}, the first in {places(refusals[:1])} "
        f"({refusals[0].source}): the model can be pruned, but not exported; "
        "kernelprune.check(model, x) lists all such operators",
        UnsupportedWarning,
        stacklevel=stacklevel + 1,
    )


def _lowered(graph: Graph) -> str | None:
    """Makes a file's graph of it; says what a file cannot hold."""
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            passes.run_all(graph)
            round_to_bytes(graph)
            passes.to_dtype(graph, np.float32)
        check_graph(graph)
    except (FormatError, ShapeError) as error:
        return str(error)
    return None


def _named(graph: Graph, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    pairs = zip(graph.output_names, graph.outputs, strict=True)
    return {name: shapes[value] for name, value in pairs}


def _group(group: Sequence[Refusal]) -> list[str]:
    first = group[0]
    count = f", {len(group)} times" if len(group) > 1 else ""
    lines = _wrapped(f"{first.operator}{count}, in {places(group)}", 2)
    lines += _wrapped(_place(first.source), 4)
    if first.reason != NO_COUNTERPART:
        lines += _wrapped(first.reason, 4)
    return lines


def _place(source: str) -> str:
    """The line without the folders on the way to its file, which would fill several lines."""
    file, colon, rest = source.partition(":")
    return f"{Path(file).name}{colon}{rest}"


def _wrapped(text: str, indent: int = 0) -> list[str]:
    blank = " " * indent
    return textwrap.wrap(plain(text), _WIDTH, initial_indent=blank, subsequent_indent=blank + "  ")
