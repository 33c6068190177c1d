"""How far whole networks are from float64, with and without Winograd's method; and from their own
float32 numbers when they are computed in int8."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.coverage.weights import images, make_plausible
from bench.networks import NETWORKS
from bench.results import load, save
from kernelprune import models
from kernelprune.benchmarking import describe_machine
from kernelprune.format import write
from kernelprune.frontends.torch import capture
from kernelprune.quantization import quantize
from kernelprune.runtime import Engine

IMAGES = 16  # one batch block
CALIBRATION = 32  # images that ranges are measured on
_SIDE = 32  # of the images that the zoo gets; its larger networks are as wide as ever
LIMITS = {"fast": 5e-5, "strict": 1e-5}


def measure_network(
    name: str, densities: Sequence[float], isa: str | None = None
) -> list[dict[str, Any]]:
    """Relative L2 distance of the engine's scores from torch in float64, by density, precision and
    number of images side by side."""
    network = NETWORKS[name]
    x = torch.randn(
        (IMAGES, 3, network.side, network.side), generator=torch.Generator().manual_seed(0)
    )
    rows = []
    for density in densities:
        module = network.module(density)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            write(capture(module, network.example()), path)
            engines = {
                (precision, lanes): Engine(path, precision=precision, lanes=lanes, isa=isa)
                for precision in LIMITS
                for lanes in (None, 1)
            }
        with torch.no_grad():
            expected = module.double()(x.double()).numpy()
        for (precision, lanes), engine in engines.items():
            distance = np.linalg.norm(engine.run(x.numpy()) - expected)
            rows.append(
                {
                    "network": name,
                    "density": density,
                    "precision": precision,
                    "planar": lanes == 1,
                    "isa": engine.isa,
                    "error": float(distance / np.linalg.norm(expected)),
                    "limit": LIMITS[precision],
                }
            )
    return rows


def run(
    out: Path, names: Sequence[str], densities: Sequence[float], isa: str | None = None
) -> dict[str, Any]:
    """Measures the networks, prints the errors and writes ``errors.json``."""
    rows: list[dict[str, Any]] = []
    print("relative L2 distance of the scores from float64")
    for name in names:
        for row in measure_network(name, densities, isa):
            rows.append(row)
            mode = "one image at a time" if row["planar"] else f"{IMAGES} images"
            verdict = "" if row["error"] <= row["limit"] else f"  ABOVE {row['limit']:g}"
            print(
                f"{name:<13} density {row['density']:<4g} {row['precision']:<6} {mode:<19} "
                f"{row['error']:.1e}{verdict}",
                flush=True,
            )
    result = {"machine": describe_machine(), "rows": rows}
    save(result, out / "errors.json")
    return result


# ---------------------------------------------------------------- int8


def measure_int8(name: str, side: int = _SIDE) -> dict[str, Any]:
    """Relative L2 distance of a network of the zoo in int8 from itself in float32, both by the
    engine, and the share of the images of which the largest score is the same one. Weights are
    random, of plausible size; ranges are measured on other images."""
    shape = (3, side, side)
    model = models.create(name, num_classes=10, in_channels=3, seed=0)
    make_plausible(model, shape)
    graph = capture(model, torch.zeros(1, *shape))
    quantised = quantize(graph, images(CALIBRATION, shape, seed=2))
    x = images(IMAGES, shape, seed=3).numpy()
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for each in (graph, quantised.graph):
            path = Path(folder) / "model.safetensors"
            write(each, path)
            found.append(Engine(path).run(x))
    want, have = found
    error = float(np.linalg.norm(have - want) / np.linalg.norm(want))
    layers = [node for node in quantised.graph.nodes if node.has_weight()]
    return {
        "network": name,
        "side": side,
        "layers": len(layers),
        "integer_layers": sum(node.weight_scale is not None for node in layers),
        "error": error,
        "decibels": -20 * math.log10(max(error, 1e-9)),
        "same": float((have.argmax(1) == want.argmax(1)).mean()),
    }


def run_int8(out: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures classifiers of the zoo, by default all, prints a table and writes
    ``errors-int8.json``, which keeps what others of them have given."""
    path = out / "errors-int8.json"
    chosen = list(names or models.names("classifier"))
    rows = (
        [row for row in load(path)["rows"] if row["network"] not in chosen] if path.exists() else []
    )
    print("| network | layers | relative L2 distance | SNR, dB | same class |\n" + "|---" * 5 + "|")
    for name in chosen:
        row = measure_int8(name)
        rows.append(row)
        print(
            f"| {name} | {row['layers']} | {row['error']:.3f} | {row['decibels']:.0f} | "
            f"{round(IMAGES * row['same'])} of {IMAGES} |",
            flush=True,
        )
        rows.sort(key=lambda each: each["network"])
        save({"machine": describe_machine(), "rows": rows}, path)
    return {"rows": rows}
