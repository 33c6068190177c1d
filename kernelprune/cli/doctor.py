"""``kernelprune doctor``: is everything here that should be, and does the engine compute right?"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernelprune.errors import DeviceError, Error
from kernelprune.format import Graph, Node, Value, write
from kernelprune.graph.quantization import Quantization
from kernelprune.runtime import Engine, available_isas, fma_peak

_TOLERANCE = 1e-5
# By precision; those that round more, as much as a small network may lose.
_GPU_TOLERANCES = {"strict": 1e-5, "fast": 1e-5, "tf32": 5e-3, "half": 5e-3}


def self_test_graph(seed: int = 0) -> Graph:
    """A small network with every kind of step: stride, border, residual, pools, linear, softmax."""
    random = np.random.default_rng(seed)

    def weights(out_channels: int, in_channels: int, *kernel: int, density: float) -> np.ndarray:
        # Scaled so that the values neither grow nor vanish on their way: the scores at the end
        # would else be zeros and a one, whatever came before.
        fan_in = in_channels * density * float(np.prod(kernel))
        values = random.standard_normal((out_channels, in_channels, *kernel)) / fan_in**0.5
        kept = random.random((out_channels, in_channels)) < density
        return (values * kept.reshape(*kept.shape, *(1,) * len(kernel))).astype(np.float32)

    def conv(name: str, x: str, shape: tuple[int, ...], w: np.ndarray, **params: Any) -> Node:
        side = w.shape[-1] // 2
        settings = {
            "kernel": list(w.shape[2:]),
            "stride": [1, 1],
            "padding": [side] * 4,
            "dilation": [1, 1],
            "activation": "relu",
        }
        inputs = [x, *params.pop("residual", [])]
        bias = random.standard_normal(len(w)).astype(np.float32)
        return Node("conv2d", name, inputs, f"{name}.y", shape, settings | params, w, bias)

    pool = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0]}
    linear = weights(10, 40, density=0.5)
    nodes = [
        conv("first", "x", (24, 13, 13), weights(24, 3, 3, 3, density=1.0)),
        conv(
            "second",
            "first.y",
            (24, 13, 13),
            weights(24, 24, 3, 3, density=0.2),
            residual=["first.y"],
        ),
        Node(
            "max_pool2d",
            "pool",
            ["second.y"],
            "pool.y",
            (24, 6, 6),
            {**pool, "dilation": [1, 1]},
        ),
        conv("third", "pool.y", (40, 3, 3), weights(40, 24, 5, 5, density=0.2), stride=[2, 2]),
        conv("fourth", "third.y", (40, 3, 3), weights(40, 40, 1, 1, density=0.2)),
        Node("global_avg_pool", "mean", ["fourth.y"], "mean.y", (40, 1, 1)),
        Node("flatten", "flat", ["mean.y"], "flat.y", (40,)),
        Node(
            "linear",
            "last",
            ["flat.y"],
            "last.y",
            (10,),
            {"activation": "none"},
            linear,
            np.zeros(10, np.float32),
        ),
        Node("softmax", "scores", ["last.y"], "scores.y", (10,)),
    ]
    return Graph([Value("x", (3, 13, 13))], ["scores.y"], nodes)


def int8_self_test_graph(seed: int = 0) -> Graph:
    """A small quantised network: layers of integers, a residual, a pool and a table."""
    random = np.random.default_rng(seed)
    kinds = [Quantization(0.05, 121), Quantization(0.03, 7), Quantization(0.04, 130)]

    def layer(
        op: str, name: str, x: list[str], shape: tuple[int, ...], kernel: tuple[int, ...], to: int
    ) -> Node:
        in_channels = 3 if x[0] == "x" else 24
        w = random.integers(-127, 128, (shape[0], in_channels, *kernel))
        w = w * (random.random(w.shape[:2]) < 0.5).reshape(*w.shape[:2], *[1] * len(kernel))
        window = {} if op == "linear" else {"kernel": list(kernel), "stride": [1, 1]}
        if window:
            window |= {"padding": [kernel[0] // 2] * 4, "dilation": [1, 1]}
        scale = random.uniform(0.5, 1, shape[0]).astype(np.float32) / np.float32(400)
        bias = random.integers(-500, 500, shape[0]).astype(np.int32)
        return Node(
            op, name, x, f"{name}.y", shape, {**window, "activation": "none"},
            w.astype(np.int8), bias, quantization=kinds[to], weight_scale=scale,
        )  # fmt: skip

    function = {"function": "silu", "alpha": 0.0, "beta": 0.0}
    nodes = [
        layer("conv2d", "first", ["x"], (24, 13, 13), (3, 3), 1),
        layer("conv2d", "second", ["first.y", "first.y"], (24, 13, 13), (1, 1), 2),
        Node("unary", "silu", ["second.y"], "silu.y", (24, 13, 13), function,
             quantization=kinds[1]),
        Node("global_avg_pool", "mean", ["silu.y"], "mean.y", (24, 1, 1), quantization=kinds[1]),
        Node("flatten", "flat", ["mean.y"], "flat.y", (24,), quantization=kinds[1]),
        layer("linear", "last", ["flat.y"], (10,), (), 2),
    ]  # fmt: skip
    return Graph([Value("x", (3, 13, 13), quantization=kinds[0])], ["last.y"], nodes)


def self_test() -> dict[str, float]:
    """Largest relative L2 error against the reference over batches 1, 5, 16 and 33, by ISA.

    Raises:
        Error: The file that was just written cannot be run.
    """
    errors = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "self-test.safetensors"
        write(self_test_graph(), path)
        random = np.random.default_rng(1)
        for isa in available_isas():
            engine = Engine(path, isa=isa, threads=2)
            worst = 0.0
            for batch in (1, 5, 16, 33):
                x = random.standard_normal((batch, 3, 13, 13)).astype(np.float32)
                expected = engine.run_reference(x)
                distance = np.linalg.norm(engine.run(x) - expected) / np.linalg.norm(expected)
                worst = max(worst, float(distance))
            errors[isa] = worst
    return errors


def examine_gpus(devices: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether all of ``devices`` that are there compute right, and a line for each and each of its
    precisions, and for a quantised model; of one that cannot be used, why."""
    lines, healthy = [], True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "self-test.safetensors"
        write(self_test_graph(), path)
        x = np.random.default_rng(1).standard_normal((5, 3, 13, 13)).astype(np.float32)
        # Without asking KERNELPRUNE_ISA, which may name none.
        expected = Engine(path, isa="portable").run_reference(x)
        quantized = Path(folder) / "self-test-int8.safetensors"
        write(int8_self_test_graph(), quantized)
        bytes_of_cpu = Engine(quantized, isa="portable").run_reference(x).astype(np.float32)
        for device in devices:
            try:
                for precision, bound in _GPU_TOLERANCES.items():
                    engine = Engine(path, device, precision=precision)
                    distance = np.linalg.norm(engine.run(x) - expected)
                    error = float(distance / np.linalg.norm(expected))
                    right = error <= bound
                    healthy = healthy and right
                    lines.append(
                        f"self-test {device} ({engine.isa}), {precision}: "
                        f"{'passed' if right else 'FAILED'} (relative error {error:.1e})"
                    )
                engine = Engine(quantized, device)
                right = np.array_equal(engine.run(x), bytes_of_cpu)
                healthy = healthy and right
                lines.append(
                    f"self-test {device} ({engine.isa}), int8: "
                    f"{'passed' if right else 'FAILED'} (the CPU's bytes)"
                )
            except DeviceError as error:  # what it says begins with the device
                lines.append(f"engine: {error}")
    return healthy, lines


def _gpus_of_torch() -> tuple[list[str], str]:
    """The GPUs that torch sees, as devices of the engine, and a line about them."""
    try:
        import torch
    except ImportError:
        return ["cuda"], "torch: not installed"
    names = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    if names:
        return [f"cuda:{place}" for place in range(len(names))], f"torch sees {', '.join(names)}"
    built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "has no CUDA"
    return ["cuda"], f"torch sees no GPU (it {built}): training runs on the CPU"


def examine() -> tuple[bool, list[Any]]:
    """Everything worth knowing about this installation.

    Returns:
        Whether the engine works, and tables and lines to print.
    """
    from kernelprune.benchmarking import describe_machine
    from kernelprune.report import machine_table

    machine = describe_machine()
    chosen = os.environ.get("KERNELPRUNE_ISA")
    machine["isa in use"] = chosen or machine["isas"][0]
    parts: list[Any] = [machine_table(machine)]
    healthy = True
    try:
        peak = fma_peak(chosen or None)
        parts.append(f"FMA peak of one core: {peak / 1e9:.1f} billion multiply-adds/s")
        for isa, error in self_test().items():
            right = error <= _TOLERANCE
            healthy = healthy and right
            parts.append(
                f"self-test {isa}: {'passed' if right else 'FAILED'} (relative error {error:.1e})"
            )
    except Error as error:
        healthy = False
        parts.append(f"engine: FAILED ({error})")
    devices, seen = _gpus_of_torch()
    right, lines = examine_gpus(devices)
    healthy = healthy and right
    parts += [seen, *lines, f"Fashion-MNIST: {_data_place()}"]
    parts.append("all is well" if healthy else "the engine does not work here: see above")
    return healthy, parts


def _data_place() -> str:
    try:
        from kernelprune.data.fashion_mnist import find_folder
    except ImportError as error:
        return f"unknown ({error})"
    folder = find_folder()
    return str(folder) if folder else "not found (apt-get install dataset-fashion-mnist)"
