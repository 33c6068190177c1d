"""What one node of a model does and costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kernelprune.columns import broken, terminal_width
from kernelprune.text import plain

_NAME = 26  # of a layer in one line


@dataclass(frozen=True)
class LayerProfile:
    """What one node of the model does and costs.

    Attributes:
        name: Name of the node in the file.
        op: Its operator, such as ``conv2d``.
        kernel: The kernels that the plan chose, ``name/<isa>x<vector width>``.
        shape: Output shape per image, ``[C, H, W]`` or ``[F]``.
        connections: Kept connections; 0 for nodes without weights.
        all_connections: Kept and pruned connections.
        macs: Multiply-adds of the kept connections, per image.
        dense_macs: Multiply-adds per image if every connection had been kept.
        milliseconds: Median time for the whole batch; 0 if it was not measured.
        peak_share: Multiply-adds per second over the FMA peak of the threads used, 0..1;
            0 if it was not measured.
    """

    name: str
    op: str
    kernel: str
    shape: tuple[int, ...]
    connections: int
    all_connections: int
    macs: int
    dense_macs: int
    milliseconds: float = 0.0
    peak_share: float = 0.0

    @property
    def density(self) -> float:
        """Kept connections over all connections; 1 for nodes without weights."""
        return self.connections / self.all_connections if self.all_connections else 1.0

    def __str__(self) -> str:
        name, *more = broken(plain(self.name), "name", _NAME)
        line = (
            f"{name:<{_NAME}}  {plain(self.op):<15} {self.density:>7.1%} "
            f"{self.macs / 1e6:>9.2f} MMAC {self.milliseconds:>8.3f} ms"
        )
        rest = f"{self.peak_share:.0%} of peak  {plain(self.kernel)}"
        if len(line) + 2 + len(rest) <= terminal_width():
            return "\n".join([f"{line}  {rest}", *more])
        return "\n".join([line, *more, *(f"    {part}" for part in broken(rest, "words", 74))])


def layer_profile(layer: Any, peak: float = 0.0, batch: int = 1) -> LayerProfile:
    """Of a layer as the core tells it; ``peak``: multiply-adds per second, 0 if not known."""
    share = layer.macs * batch / layer.seconds / peak if peak and layer.seconds else 0.0
    return LayerProfile(
        name=layer.name,
        op=layer.op,
        kernel=layer.kernel,
        shape=tuple(layer.shape),
        connections=layer.connections,
        all_connections=layer.all_connections,
        macs=layer.macs,
        dense_macs=layer.dense_macs,
        milliseconds=layer.seconds * 1e3,
        peak_share=share,
    )
