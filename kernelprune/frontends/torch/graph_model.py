"""A Graph as a torch module that computes every value as FORMAT.md defines it: bytes are the
engine's bytes, bit by bit, wherever the definition is the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from kernelprune.errors import Error, ShapeError
from kernelprune.frontends.torch.byte_steps import Bytes, Step
from kernelprune.graph.connections import Connections
from kernelprune.graph.groups import regroup
from kernelprune.graph.ir import Graph
from kernelprune.graph.quantization import quantizations

# Told the name of every value and what was computed: bytes, or float32.
See = Callable[[str, torch.Tensor], None]


class GraphModel(nn.Module):
    """Takes the graph's inputs ``[N, ...]`` in order, as the engine does, and gives its output in
    float32, a tuple when there are several. Nothing trains; all arrays of the graph, and the scales
    and zero points, are buffers. Copies and pickles are made from the graph.
    """

    steps: Any  # of Step

    def __init__(self, graph: Graph, source: str = "Graph"):
        """``source``: what the graph was made of."""
        super().__init__()
        self.source = source
        own = regroup(graph.copy())
        shapes = own.shapes()
        found = quantizations(own)
        self.quantizations = nn.ModuleList(Bytes(each) for each in found.values())
        self._places = {name: place for place, name in enumerate(found)}
        self.steps = nn.ModuleList(
            Step(node, [shapes[name] for name in node.inputs]) for node in own.nodes
        )
        own.nodes = []
        self._frame = own
        self._last = self._last_readers()
        self.eval()

    def __reduce__(self) -> tuple[Any, ...]:
        buffer = next(self.buffers(), None)
        return _rebuilt, (type(self), self._arguments(), buffer is not None and buffer.device)

    def _arguments(self) -> tuple[Any, ...]:
        """Those of the constructor for a copy."""
        return self.graph, self.source

    @property
    def graph(self) -> Graph:
        """What is computed, with the arrays and scales as they are now."""
        graph = self._frame.copy()
        for value in graph.inputs:
            own = self.bytes_of(value.name)
            value.quantization = None if own is None else own.quantization()
        for step in self.steps:
            node = step.node()
            own = self.bytes_of(node.output)
            node.quantization = None if own is None else own.quantization()
            groups = int(node.params.pop("groups", 1))
            if groups > 1:
                node.set_sparse(Connections.from_groups(node.weight, groups))
            graph.nodes.append(node)
        return graph

    def bytes_of(self, value: str) -> Bytes | None:
        """What the bytes of a value stand for; None for numbers."""
        place = self._places.get(value)
        return None if place is None else self.quantizations[place]  # type: ignore[return-value]

    def _last_readers(self) -> dict[str, int]:
        """The step after which nobody needs a value; graph outputs are needed to the end."""
        last = {}
        for position in range(len(self.steps)):
            for name in self.read_by(position):
                last[name] = position
        return {name: at for name, at in last.items() if name not in self._frame.outputs}

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Float32 or whatever converts to it, bytes for an input of dtype u8."""
        return self.run(inputs)

    @torch.no_grad()
    def run(self, inputs: tuple[torch.Tensor, ...], see: See | None = None) -> Any:
        """``forward``, with every value shown to ``see`` as soon as it is known."""
        values = self.given(inputs)
        if see is not None:
            for name, known in values.items():
                see(name, known)
        for position, step in enumerate(self.steps):
            given = [values[name] for name in self.read_by(position)]
            values[step.output] = self.compute(position, given)
            if see is not None:
                see(step.output, values[step.output])
            for name in self.done_after(position):
                values.pop(name, None)
        results = [self.numbers(name, values[name]) for name in self._frame.outputs]
        return results[0] if len(results) == 1 else tuple(results)

    def given(self, inputs: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """The graph's inputs by name, as numbers or as bytes. Raises Error or ShapeError for ones
        that it does not take."""
        wanted = self._frame.inputs
        if len(inputs) != len(wanted):
            raise Error(f"the model takes {len(wanted)} inputs, not {len(inputs)}")
        values = {}
        for value, x in zip(wanted, inputs, strict=True):
            if tuple(x.shape[1:]) != tuple(value.shape):
                raise ShapeError(
                    f"input '{value.name}' is {list(x.shape)}, the model takes [N, "
                    f"{', '.join(map(str, value.shape))}]"
                )
            own = self.bytes_of(value.name)
            if own is None:
                values[value.name] = x.float()
            else:
                values[value.name] = x if value.dtype == "u8" else own.quantize(x.float())
        return values

    def compute(self, position: int, values: list[torch.Tensor]) -> torch.Tensor:
        """The output of the step there from the values that it reads."""
        step = self.steps[position]
        given = [self.bytes_of(name) for name in self.read_by(position)]
        with torch.autocast(values[0].device.type, enabled=False):
            found: torch.Tensor = step(values, given, self.bytes_of(step.output))
        return found

    def read_by(self, position: int) -> list[str]:
        """The values that a step takes: a constant any input, for the size of the batch."""
        return self.steps[position].inputs or [self._frame.inputs[0].name]

    def done_after(self, position: int) -> list[str]:
        """The values that nobody needs after the step."""
        return [name for name in self.read_by(position) if self._last.get(name) == position]

    def numbers(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """What a value of this name stands for."""
        own = self.bytes_of(name)
        return value if own is None else own.dequantize(value)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> GraphModel:
        # half() and double() would round the scales, or not mean what they say.
        def keep_type(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(keep_type, recurse)
        return self


def _rebuilt(kind: type[GraphModel], arguments: tuple[Any, ...], device: Any) -> GraphModel:
    model = kind(*arguments)
    return model.to(device) if device else model
