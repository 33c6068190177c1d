"""What quantisation did to each layer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from kernelprune.text import plain

_WIDTH = 80


@dataclass(frozen=True)
class LayerReport:
    """Of one layer, or of an input of the network.

    ``low`` and ``high``: the least and largest number that its output took. ``scale`` and
    ``zero_point``: of the output's bytes, None where it stays numbers. ``clipped``: the share of
    the numbers that bytes cannot reach. ``signal_to_noise``: in dB, the output of the quantised
    network against that of the float32 one, with what all layers before have added. ``precision``:
    "int8" or "float32", what the layer computes with.
    """

    name: str
    op: str
    precision: str
    low: float
    high: float
    scale: float | None
    zero_point: int | None
    clipped: float
    signal_to_noise: float


@dataclass(frozen=True)
class QuantizationReport:
    """``layers`` in the order in which they are computed, inputs first. ``images``: how many were
    measured. ``evaluated``: what ``evaluate`` gave for the float32 network and for this one.
    ``print`` shows a table."""

    method: str
    images: int
    layers: tuple[LayerReport, ...]
    evaluated: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dictionaries (json)."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        head = ("range", "scale", "zero", "clipped", "SNR dB")
        rows = [_cells(layer) for layer in self.layers]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        space = _WIDTH - sum(widths) - 2 * len(widths)
        names = [_short(layer.name, space) for layer in self.layers]
        width = max(len(name) for name in ["layer", *names])
        lines = [
            name.ljust(width)
            + "".join(f"  {cell:>{size}}" for cell, size in zip(row, widths, strict=True))
            for name, row in zip(["layer", *names], [head, *rows], strict=True)
        ]
        whole = [layer for layer in self.layers if layer.precision == "int8"]
        layers = sum(layer.op != "input" for layer in self.layers)
        lines.append(
            f"{len(whole)} of {layers} layers in int8, ranges by {self.method} of "
            f"{self.images:,} images"
        )
        if self.evaluated is not None:
            exact, value = self.evaluated
            lines.append(f"evaluate: {exact:.4g} in float32, {value:.4g} quantised")
        return "\n".join(line.rstrip() for line in lines)


def _cells(layer: LayerReport) -> tuple[str, ...]:
    is_bytes = layer.scale is not None
    return (
        f"{layer.low:.4g} .. {layer.high:.4g}",
        f"{layer.scale:.4g}" if is_bytes else layer.precision,
        str(layer.zero_point) if is_bytes else "",
        f"{layer.clipped:.2%}" if is_bytes else "",
        f"{layer.signal_to_noise:.1f}",
    )


def _short(name: str, width: int) -> str:
    """The end of a name says more than its beginning."""
    name = plain(name)
    return name if len(name) <= width else f"...{name[3 - width :]}"
