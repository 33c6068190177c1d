"""``python -m bench.footprint_int8``: what int8 saves in files, loading and memory.

The networks of the goal table, quantised with random images: bytes of the file, seconds from the
file to an engine, bytes of weights and of activations, beside float32. Writes footprint-int8.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.networks import NETWORKS
from bench.results import RESULTS, save
from kernelprune.benchmarking import describe_machine
from kernelprune.benchmarking.precision import write_int8
from kernelprune.format import write
from kernelprune.runtime import Engine

DENSITIES = (1.0, 0.3, 0.1)
LOADS = 5


def measure(path: Path, batches: Sequence[int]) -> dict[str, Any]:
    """Of a file; ``workspace`` by batch size."""
    seconds = []
    for _ in range(LOADS):
        start = time.perf_counter()
        engine = Engine(path)
        seconds.append(time.perf_counter() - start)
    return {
        "file_bytes": path.stat().st_size,
        "load_seconds": statistics.median(seconds),
        "weight_bytes": engine.weight_bytes,
        "workspace": {str(batch): engine.workspace_bytes(batch) for batch in batches},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.footprint_int8",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--density", nargs="+", type=float, default=list(DENSITIES))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder that is written")
    options = parser.parse_args(arguments)
    rows = []
    print(f"{'':<17}{'density':>8}{'file MB':>14}{'load ms':>12}{'workspace MB':>17}")
    for name in options.network:
        network = NETWORKS[name]
        for density in options.density:
            with tempfile.TemporaryDirectory() as folder:
                dense, small = (Path(folder) / f"{kind}.safetensors" for kind in ("f32", "int8"))
                graph = network.graph(density)
                write(graph, dense)
                write_int8(graph, small, network.calibration())
                row = {
                    "network": name,
                    "density": density,
                    "float32": measure(dense, network.batches),
                    "int8": measure(small, network.batches),
                }
            rows.append(row)
            print(as_line(row), flush=True)
    save({"loads": LOADS, "machine": describe_machine(), "rows": rows},
         options.out / "footprint-int8.json")  # fmt: skip


def as_line(row: dict[str, Any]) -> str:
    """float32 / int8 of each figure, the workspace of the larger batch."""
    pair = [row["float32"], row["int8"]]
    batch = max(row["int8"]["workspace"], key=int)
    figures = [
        "/".join(f"{each['file_bytes'] / 1e6:.1f}" for each in pair),
        "/".join(f"{1e3 * each['load_seconds']:.0f}" for each in pair),
        "/".join(f"{each['workspace'][batch] / 1e6:.2f}" for each in pair),
    ]
    return (
        f"{row['network']:<17}{row['density']:>8g}{figures[0]:>14}{figures[1]:>12}{figures[2]:>17}"
    )


if __name__ == "__main__":
    main()
