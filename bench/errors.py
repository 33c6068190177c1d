"""How far whole networks are from float64, with and without Winograd's method."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.networks import NETWORKS
from bench.results import save
from kernelprune.benchmarking import describe_machine
from kernelprune.format import write
from kernelprune.frontends.torch import capture
from kernelprune.runtime import Engine

IMAGES = 16  # one batch block
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
