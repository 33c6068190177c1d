"""The torch operators: what a call costs beside its kernel, and ResNet-18 swapped by kp.sparsify
against the same network in eager torch. Writes ``operators.json``."""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import kernelprune as kp
from bench.networks import NETWORKS
from bench.results import RESULTS, save
from kernelprune.benchmarking import Candidate, Timing, describe_machine, measure
from kernelprune.ops import cpu, dense
from kernelprune.ops.pattern import pattern_of

NETWORK = "resnet18-32"
BATCHES = (1, 16)
DENSITY = 0.1
# Channels, side, stride: of ResNet-18 for 32x32 images.
LAYERS = ((64, 32, 1), (256, 8, 1), (512, 4, 1), (128, 16, 2))
DENSITIES = (0.1, 0.5, 1.0)
_CALLS = 10  # per measurement of the overhead: a single one is near the resolution of the clock


def pruned_conv(channels: int, density: float, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
    with torch.no_grad():
        kept = torch.rand(channels, channels).flatten().argsort() < density * channels**2
        conv.weight.mul_(kept.view(channels, channels, 1, 1))
    return conv


def _many(call: Callable[[], object], grad: bool = False, inference: bool = False) -> Any:
    def run() -> None:
        mode = torch.inference_mode() if inference else torch.set_grad_enabled(grad)
        with mode:
            for _ in range(_CALLS):
                call()

    return run


def overhead(seconds: float) -> dict[str, Any]:
    """Microseconds of one call on a layer so small that its kernel takes less than one."""
    conv = pruned_conv(16, DENSITY)
    layer = kp.SparseConv2d.from_dense(conv)
    x = torch.randn(1, 16, 8, 8)
    arguments = (x, layer.weight, layer.row_ptr, layer.col, None, 16, (1, 1), (1, 1, 1, 1), (1, 1))
    op = torch.ops.kernelprune.conv2d.default
    with torch.no_grad():
        out = op(*arguments)
    (call,) = pattern_of(layer.row_ptr, layer.col).calls.values()
    pointers = (x.data_ptr(), layer.weight.data_ptr(), 0, out.data_ptr(), 1, 1)
    timings = measure(
        [
            Candidate("kernel", _many(lambda: call.run(*pointers))),
            Candidate("operator, inference_mode", _many(lambda: op(*arguments), inference=True)),
            Candidate("operator, no_grad", _many(lambda: op(*arguments))),
            Candidate("operator, recorded", _many(lambda: op(*arguments), grad=True)),
            Candidate("SparseConv2d, no_grad", _many(lambda: layer(x))),
            Candidate("nn.Conv2d, no_grad", _many(lambda: conv(x))),
        ],
        seconds=seconds,
    )
    micro = {name: timing.median * 1e3 / _CALLS for name, timing in timings.items()}
    return {
        "layer": "16 channels, 8x8, one image",
        "microseconds": micro,
        "above_kernel": {name: value - micro["kernel"] for name, value in micro.items()},
    }


def _forward(model: nn.Module, x: torch.Tensor) -> Any:
    def run() -> None:
        with torch.inference_mode():
            model(x)

    return run


def networks(seconds: float) -> list[dict[str, Any]]:
    """Inference: dense eager torch in both layouts, and swapped."""
    model = NETWORKS[NETWORK].module(DENSITY)
    sparse = kp.sparsify(copy.deepcopy(model))
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    rows = []
    for batch in BATCHES:
        x = torch.randn(batch, 3, 32, 32)
        found = measure(
            [
                Candidate("eager", _forward(model, x)),
                Candidate("channels_last", _forward(last, x.to(memory_format=torch.channels_last))),
                Candidate("sparsify", _forward(sparse, x)),
            ],
            seconds=seconds,
        )
        rows.append(_row({"network": NETWORK, "density": DENSITY, "batch": batch}, found))
    return rows


def _row(facts: dict[str, Any], found: dict[str, Timing]) -> dict[str, Any]:
    best = min(timing.median for name, timing in found.items() if name != "sparsify")
    return {
        **facts,
        "speed_up": best / found["sparsify"].median,
        "timings": {name: dataclasses.asdict(timing) for name, timing in found.items()},
    }


def layers(seconds: float) -> list[dict[str, Any]]:
    """Single layers by density: where a swap pays."""
    rows = []
    for channels, side, stride in LAYERS:
        for density in DENSITIES:
            conv = pruned_conv(channels, density, stride)
            sparse = kp.SparseConv2d.from_dense(conv)
            for batch in BATCHES:
                x = torch.randn(batch, channels, side * stride, side * stride)
                found = measure(
                    [
                        Candidate("eager", _forward(conv, x)),
                        Candidate("sparsify", _forward(sparse, x)),
                    ],
                    seconds=seconds,
                )
                facts = {"channels": channels, "side": side, "stride": stride}
                rows.append(_row({**facts, "density": density, "batch": batch}, found))
    return rows


def gradients(seconds: float) -> list[dict[str, Any]]:
    """Gradients of single layers, by the connections and dense."""
    batch, threads = BATCHES[-1], torch.get_num_threads()
    rows = []
    for channels, side, stride in LAYERS:
        for density in DENSITIES:
            conv = pruned_conv(channels, density, stride)
            layer = kp.SparseConv2d.from_dense(conv)
            pattern = pattern_of(layer.row_ptr, layer.col)
            weight, pattern_tensors = layer.weight.detach(), (layer.row_ptr, layer.col)
            size = (side * stride, side * stride)
            x, grad = torch.randn(batch, channels, *size), torch.randn(batch, channels, side, side)
            geometry = ((stride, stride), (1, 1, 1, 1), (1, 1))
            planned = pattern.weight_gradient((channels, *size), (3, 3), *geometry, threads)
            result = torch.empty_like(weight)
            pointers = (grad.data_ptr(), x.data_ptr(), result.data_ptr(), batch)
            found = measure(
                [
                    Candidate(
                        "input, connections",
                        partial(
                            cpu.conv2d_input, grad, weight, *pattern_tensors, channels, size,
                            *geometry,
                        ),
                    ),
                    Candidate(
                        "input, dense",
                        partial(
                            dense.conv2d_input, pattern, grad, weight, channels, size, *geometry
                        ),
                    ),
                    Candidate("weights, connections", partial(planned.run, *pointers)),
                    Candidate(
                        "weights, dense",
                        partial(dense.conv2d_weight, pattern, grad, x, (3, 3), *geometry),
                    ),
                ],
                seconds=seconds,
            )  # fmt: skip
            rows.append(
                {
                    "channels": channels,
                    "side": side,
                    "stride": stride,
                    "density": density,
                    "batch": batch,
                    "milliseconds": {name: timing.median for name, timing in found.items()},
                }
            )
    return rows


def _step(model: nn.Module, x: torch.Tensor) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)

    def run() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return run


def training(seconds: float) -> list[dict[str, Any]]:
    """Forward and backward of the network, weights changed in every step."""
    model = NETWORKS[NETWORK].module(DENSITY).train()
    sparse = kp.sparsify(copy.deepcopy(model))
    x = torch.randn(BATCHES[-1], 3, 32, 32)
    found = measure(
        [Candidate("eager", _step(model, x)), Candidate("sparsify", _step(sparse, x))],
        seconds=seconds,
    )
    return [_row({"network": NETWORK, "density": DENSITY, "batch": BATCHES[-1]}, found)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.operators", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="per candidate of a network")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the json file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "torch": torch.__version__,
        "threads": options.threads,
        "overhead": overhead(options.seconds / 2),
        "rows": networks(options.seconds),
        "training": training(options.seconds),
        "layers": layers(options.seconds / 16),
        "gradients": gradients(options.seconds / 16),
    }
    for name, value in result["overhead"]["microseconds"].items():
        print(f"{name:<26} {value:6.2f} us")
    for row in result["rows"] + result["training"] + result["layers"]:
        facts = ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("speed_up", "timings"))
        times = ", ".join(f"{k} {t['median']:.3f} ms" for k, t in row["timings"].items())
        print(f"{facts}: {times}: {row['speed_up']:.2f}x")
    for row in result["gradients"]:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    options.out.mkdir(parents=True, exist_ok=True)
    save(result, options.out / "operators.json")


if __name__ == "__main__":
    main()
