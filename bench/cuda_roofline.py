"""What bounds each type of layer on a GPU, by arithmetic alone; needs no GPU and measures nothing.

python -m bench.cuda_roofline      writes bench/results/cuda-roofline.json, table of docs/GPU.md

Bytes: every activation read and written once, and the connections. Multiply-adds: those of the kept
connections, at the peak times their share among the instructions of the kernel's main loop
(cuda-sass.json). Launches, transfers between shared memory and registers, and blocks that wait for
each other come on top, so these are bounds and no forecasts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bench.cuda_resources import DOCUMENT
from bench.cuda_sass import RESULT as SASS, write_table as replace_table
from bench.results import RESULTS, save
from kernelprune.files import write_text

RESULT = RESULTS / "cuda-roofline.json"
BATCH = 64
ARCHITECTURE = "sm_90"
# NVIDIA H100 SXM, data sheet: float32 multiply-adds and bytes a second.
PEAK, BANDWIDTH = 67e12 / 2, 3.35e12
GROUP = 4  # output channels of a warp
TABLE_HEAD = "| layer, float32, 64 images |"


@dataclass(frozen=True)
class Layer:
    """A convolution (kernel 0: pooling or addition) with square maps of ``side`` outputs."""

    name: str
    in_channels: int
    out_channels: int
    side: int
    kernel: int
    loop: str = ""  # of cuda-sass.json
    stride: int = 1
    depthwise: bool = False
    inputs: int = 1
    densities: tuple[float, ...] = (0.1, 1.0)


LAYERS = (
    Layer("3x3, 64 channels, 56x56", 64, 64, 56, 3, "ConvDirect<3, 1, 4, 4, 4>"),
    Layer("3x3, 128 channels, 28x28", 128, 128, 28, 3, "ConvDirect<3, 1, 4, 4, 4>"),
    Layer("3x3, 256 channels, 14x14", 256, 256, 14, 3, "ConvDirect<3, 1, 4, 4, 4>"),
    Layer("3x3 stride 2, 128 channels, 28x28", 128, 128, 28, 3, "ConvDirect<3, 2, 4, 2, 4>", 2),
    Layer("1x1, 256 to 64 channels, 56x56", 256, 64, 56, 1, "ConvDirect<1, 1, 4, 4, 4>"),
    Layer("1x1, 1024 to 256 channels, 14x14", 1024, 256, 14, 1, "ConvDirect<1, 1, 4, 4, 4>"),
    Layer("depthwise 3x3, 128 channels, 28x28", 128, 128, 28, 3, "ConvDirect<3, 1, 4, 4, 4>",
          depthwise=True, densities=(1.0,)),
    Layer("linear, 512 to 1000", 512, 1000, 1, 1),
    Layer("max pool 2x2, 64 channels, 56x56", 64, 64, 56, 0, stride=2, densities=(1.0,)),
    Layer("add, 256 channels, 56x56", 256, 256, 56, 0, inputs=2, densities=(1.0,)),
)  # fmt: skip


def share(loop: dict[str, Any], density: float, depthwise: bool) -> float:
    """Of multiply-adds among the instructions issued. Connections are random: a patch that has any
    of the group's outputs has so many of them."""
    mean = 1.0 if depthwise else GROUP * density / (1 - (1 - density) ** GROUP)
    each = loop["multiply_adds"] / GROUP
    return float(mean * each / (loop["per_patch"] + mean * loop["per_connection"]))


def bounds(layer: Layer, density: float, loops: dict[str, Any]) -> dict[str, Any]:
    pixels = layer.side**2 * BATCH
    reads = layer.inputs * layer.in_channels * pixels * layer.stride**2
    connections = 0.0
    if layer.kernel:
        all_of_them = layer.in_channels * (1 if layer.depthwise else layer.out_channels)
        connections = density * all_of_them
    moved = 4 * (reads + layer.out_channels * pixels)
    moved += connections * (4 * layer.kernel**2 + 4)  # an entry of the list of patches
    macs = connections * layer.kernel**2 * pixels
    issued = share(loops[layer.loop]["main_loop"], density, layer.depthwise) if layer.loop else 1.0
    memory, compute = moved / BANDWIDTH * 1e6, macs / (PEAK * issued) * 1e6
    return {
        "layer": layer.name,
        "density": density,
        "flops_per_byte": 2 * macs / moved,
        "share": issued,
        "memory_microseconds": memory,
        "compute_microseconds": compute,
        "bound": "memory" if memory > compute else "multiply-adds",
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{TABLE_HEAD} density | FLOP per byte | memory, us | multiply-adds, us | bound by |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        both = (row["memory_microseconds"], row["compute_microseconds"])
        times = " | ".join(f"{time:.0f}" if time >= 10 else f"{time:.1f}" for time in both)
        lines.append(
            f"| {row['layer']} | {row['density']:g} | {row['flops_per_byte']:.1f} "
            f"| {times} | {row['bound']} |"
        )
    return "\n".join(lines) + "\n"


def write_table(text: str, new: str) -> str:
    """The document with this table replaced."""
    return replace_table(text, new, TABLE_HEAD)


def compute() -> list[dict[str, Any]]:
    loops = json.loads(SASS.read_text())["kernels"][ARCHITECTURE]
    return [bounds(layer, density, loops) for layer in LAYERS for density in layer.densities]


def main() -> None:
    rows = compute()
    device = {"multiply_adds_per_second": PEAK, "bytes_per_second": BANDWIDTH}
    save({"measured": False, "device": device, "batch": BATCH, "rows": rows}, RESULT)
    write_text(DOCUMENT, write_table(DOCUMENT.read_text(), table(rows)))
    print(table(rows), end="")


if __name__ == "__main__":
    main()
