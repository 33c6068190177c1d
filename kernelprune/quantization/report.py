"""What quantisation did to each layer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from kernelprune.columns import Column, text_table

_COLUMNS = (
    Column("layer", "name"),
    Column("range", spare=1),
    Column("scale"),
    Column("zero", spare=2),
    Column("clipped"),
    Column("SNR dB"),
)


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
        lines = [text_table(_COLUMNS, [_cells(layer) for layer in self.layers])]
        whole = [layer for layer in self.layers if layer.precision == "int8"]
        layers = sum(layer.op != "input" for layer in self.layers)
        lines.append(
            f"{len(whole)} of {layers} layers in int8, ranges by {self.method} of "
            f"{self.images:,} images"
        )
        if self.evaluated is not None:
            exact, value = self.evaluated
            lines.append(f"evaluate: {exact:.4g} in float32, {value:.4g} quantised")
        return "\n".join(lines)


def _cells(layer: LayerReport) -> tuple[str, ...]:
    is_bytes = layer.scale is not None
    return (
        layer.name,
        f"{layer.low:.4g} .. {layer.high:.4g}",
        f"{layer.scale:.4g}" if is_bytes else layer.precision,
        str(layer.zero_point) if is_bytes else "",
        f"{layer.clipped:.2%}" if is_bytes else "",
        f"{layer.signal_to_noise:.1f}",
    )
