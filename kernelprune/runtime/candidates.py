"""The ways of computing each layer that a plan has considered, with what it expects of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kernelprune.runtime.engine import Engine


@dataclass(frozen=True)
class Choice:
    """One way of computing a layer: its ``name`` in plans, and the milliseconds that the cost model
    expects for all images that are computed side by side; ``kernels`` as in
    :attr:`LayerProfile.kernel`, without the instruction set."""

    name: str
    milliseconds: float
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class LayerChoices:
    """What was considered for a layer with ``lanes`` images side by side, the cheapest first, and
    the name of the one that was chosen."""

    lanes: int
    layer: str
    chosen: str
    choices: tuple[Choice, ...]

    @property
    def taken(self) -> Choice:
        """The one that was chosen."""
        return next(choice for choice in self.choices if choice.name == self.chosen)


def layer_choices(engine: Engine, batch: int = 1) -> dict[str, LayerChoices]:
    """By layer, for ``batch`` images: of the modes in which it can be computed the one whose
    kernels the plan for the batch has. Layers that can be computed in one way only are there too;
    ops without weights, and other devices than the CPU, have none.

    Raises:
        Error: ``batch`` is no whole number from 1 up.
    """
    kernels = {layer.name: layer.kernel for layer in engine.layers(batch)}
    found: dict[str, LayerChoices] = {}
    for layer in sorted(map(_choices, engine._core.candidates), key=lambda each: each.lanes):
        words = {part.partition("/")[0] for part in kernels[layer.layer].split(" + ")}
        # One image at a time comes first and stays where the kernels of no mode are these.
        if layer.layer not in found or (layer.lanes <= batch and words >= set(layer.taken.kernels)):
            found[layer.layer] = layer
    return found


def _choices(layer: Any) -> LayerChoices:
    choices = [
        Choice(each.name, each.expected_seconds * 1e3, tuple(s.kernel for s in each.stages))
        for each in layer.candidates
    ]
    choices.sort(key=lambda choice: choice.milliseconds)
    return LayerChoices(layer.lanes, layer.node, layer.chosen, tuple(choices))
