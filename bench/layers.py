"""The single layers that are measured, and what each of them computes and moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from kernelprune.format import Graph, Node, Value


@dataclass(frozen=True)
class Case:
    """One convolution.

    Attributes:
        channels: Input channels; output channels too unless those are given.
        side: Height and width of the input.
        batch: Images per run.
        density: Share of the connections that is kept, at random.
        kernel: Height and width.
        stride: Of both directions.
        wanted: The share of the FMA peak that the layer should reach.
        out_channels: None: as many as ``channels``.
        depthwise: Connections on the diagonal only; ``density`` is not looked at.
        first: The layer reads the network's input, whose conversion is then part of its time.
    """

    channels: int
    side: int
    batch: int
    density: float
    kernel: int = 3
    stride: int = 1
    wanted: float | None = None
    out_channels: int | None = None
    depthwise: bool = False
    first: bool = False

    @staticmethod
    def of(row: Mapping[str, Any]) -> Case:
        """The case of a row of ``kernels.json``, of any version of it."""
        known = {entry.name for entry in fields(Case)}
        return Case(**{key: value for key, value in row.items() if key in known})

    @property
    def outputs(self) -> int:
        return self.channels if self.out_channels is None else self.out_channels

    @property
    def out_side(self) -> int:
        return (self.side + 2 * (self.kernel // 2) - self.kernel) // self.stride + 1

    @property
    def name(self) -> str:
        stride = f" stride {self.stride}" if self.stride > 1 else ""
        kind = "depthwise " if self.depthwise else ""
        channels = f"{self.channels}ch"
        if self.outputs != self.channels:
            channels = f"{self.channels}->{self.outputs}ch"
        size = f"{channels} {self.side}x{self.side}"
        density = "" if self.depthwise else f" density {self.density:g}"
        return f"{kind}{self.kernel}x{self.kernel}{stride} {size}{density}"

    @property
    def connections(self) -> float:
        """Kept ones; the expected number where they are random."""
        return self.channels if self.depthwise else self.channels * self.outputs * self.density

    @property
    def macs(self) -> float:
        """Multiply-adds of the whole batch."""
        return self.batch * self.connections * self.kernel**2 * self.out_side**2

    @property
    def bytes(self) -> float:
        """The least that must be moved: input, output, kept weights and their indices."""
        maps = self.channels * self.side**2 + self.outputs * self.out_side**2
        return 4 * self.batch * maps + self.connections * (4 * self.kernel**2 + 2)


def _cases() -> list[Case]:
    """Batch 16: images side by side in a vector. Batch 1: pixels of one image."""
    cases = [
        Case(64, 32, 16, 0.1),
        *(Case(128, 16, 16, density) for density in (1.0, 0.3)),
        Case(128, 16, 16, 0.1, wanted=0.85),
        Case(128, 16, 16, 0.05),
        Case(256, 8, 16, 0.3),
        Case(256, 8, 16, 0.1, wanted=0.85),
        Case(256, 8, 16, 0.05),
        Case(512, 4, 16, 0.1),
        Case(512, 2, 16, 0.1),
        Case(128, 16, 16, 0.1, stride=2),
        Case(256, 16, 16, 0.1, kernel=1),
        Case(64, 32, 1, 0.1, wanted=0.60),
        Case(128, 16, 1, 0.3),
        Case(128, 16, 1, 0.1, wanted=0.60),
        Case(128, 16, 1, 0.05),
        Case(256, 8, 1, 0.1, wanted=0.60),
        Case(512, 4, 1, 0.1),
        Case(128, 56, 1, 0.1),
        Case(128, 16, 1, 0.1, stride=2),
        Case(256, 14, 1, 0.1, kernel=1),
    ]
    for batch in (1, 16):
        # The first convolutions of networks for large and for small images are never pruned.
        cases.append(Case(3, 224, batch, 1.0, kernel=7, stride=2, out_channels=64, first=True))
        cases.append(Case(3, 32, batch, 1.0, out_channels=64, first=True))
        # The 3x3 convolutions of ResNet-18 and ResNet-50.
        for channels, side in ((64, 56), (128, 28), (256, 14), (512, 7)):
            cases.append(Case(channels, side, batch, 0.1))
        cases.append(Case(64, 56, batch, 1.0))
        cases.append(Case(256, 14, batch, 1.0))
        cases.append(Case(128, 56, batch, 0.1, stride=2))
        cases.append(Case(256, 28, batch, 0.1, stride=2))
        # The 1x1 convolutions of ResNet-50.
        for inputs, outputs, side in (
            (64, 256, 56),
            (256, 64, 56),
            (512, 128, 28),
            (1024, 256, 14),
            (2048, 512, 7),
        ):
            cases.append(Case(inputs, side, batch, 0.1, kernel=1, out_channels=outputs))
        cases.append(Case(256, 56, batch, 1.0, kernel=1, out_channels=64))
        cases.append(Case(1024, 14, batch, 1.0, kernel=1, out_channels=256))
        for channels, side in ((64, 56), (256, 14)):
            cases.append(Case(channels, side, batch, 1.0, depthwise=True))
    return cases


CASES = _cases()


def graph(case: Case) -> Graph:
    """The case, between two other layers that take over the conversion of input and output.

    They have the case's kind of kernel and its density, so that the measured layer finds the caches
    as it would in a network of such layers; around a depthwise one they are 1x1.
    """
    random = np.random.default_rng(0)
    nodes: list[Node] = []

    def conv(
        name: str, x: str, channels: int, outputs: int, side: int, kernel: int, stride: int
    ) -> int:
        if case.depthwise and name == "measured":
            kept = np.eye(channels, dtype=bool)
        else:
            density = 0.1 if case.depthwise else case.density
            kept = random.random((outputs, channels)) < density
        weight = random.standard_normal((outputs, channels, kernel, kernel))
        weight *= kept[:, :, None, None]
        weight /= max(kept.sum() / outputs * kernel**2, 1.0) ** 0.5
        side = (side + 2 * (kernel // 2) - kernel) // stride + 1
        params = {
            "kernel": [kernel] * 2,
            "stride": [stride] * 2,
            "padding": [kernel // 2] * 4,
            "dilation": [1, 1],
            "activation": "relu",
        }
        output = (outputs, side, side)
        nodes.append(
            Node(
                "conv2d",
                name,
                [x],
                f"{name}.y",
                output,
                params,
                weight.astype(np.float32),
                np.zeros(outputs, np.float32),
            )
        )
        return side

    beside = 1 if case.depthwise or case.first else case.kernel
    value, side = "x", case.side
    if not case.first:
        side = conv("before", "x", case.channels, case.channels, side, beside, 1)
        value = "before.y"
    side = conv("measured", value, case.channels, case.outputs, side, case.kernel, case.stride)
    # A dense layer after a first convolution would be most of the work.
    after = min(case.outputs, 64) if case.first else case.outputs
    conv("after", "measured.y", case.outputs, after, side, beside, 1)
    return Graph([Value("x", (case.channels, case.side, case.side))], ["after.y"], nodes)
