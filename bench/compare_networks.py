"""``python -m bench.compare_networks``: newer kinds of networks against other engines.

Depthwise convolutions with squeeze-and-excitation, a decoder with skips, a detector: dense and with
a tenth of the connections, all engines taking turns on each network and batch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.networks import Network, Settled
from bench.peers import Race, as_line
from bench.results import RESULTS, save
from kernelprune.benchmarking import PEERS, describe_machine
from kernelprune.errors import Error

DENSITIES = (1.0, 0.1)
BATCHES = (1, 16)
AGAINST = ("torch", "onnxruntime", "openvino")


NETWORKS: dict[str, Network] = {
    "efficientnet_b0-224": Settled("efficientnet_b0", 224, BATCHES, 1000),
    "mobilenet_v3_large-224": Settled("mobilenet_v3_large", 224, BATCHES, 1000),
    "unet-256": Settled("unet", 256, BATCHES, 2, {"encoder": "resnet34"}),
    "yolov8n-640": Settled("yolov8n", 640, BATCHES, 80),
}


def compare(
    networks: Mapping[str, Network],
    *,
    batches: Sequence[int] | None = None,
    densities: Sequence[float] = DENSITIES,
    against: Sequence[str] = AGAINST,
    threads: int = 1,
    seconds: float = 2.0,
    torch_compile: bool = True,
    **engine: Any,
) -> dict[str, Any]:
    """Races the networks, prints the rows and returns what ``networks.json`` holds.

    ``engine`` are more options of :class:`kernelprune.Engine`, such as ``isa``. Raises Error.
    """
    machine = describe_machine()
    rows: list[dict[str, Any]] = []
    missing: dict[str, dict[str, str]] = {}
    peaks: list[float] = []
    for name, network in networks.items():
        print(f"{name}, {threads} thread(s) of {machine['processor']}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            race = Race(network, densities, threads, engine, Path(folder))
            for batch in batches or network.batches:
                for row in race.rows(batch, against, seconds, torch_compile):
                    rows.append({"network": name, **row})
                    print(as_line(row), flush=True)
        missing[name] = race.missing
        peaks.append(race.peak / 1e9)
    return {
        "machine": machine,
        "threads": threads,
        "engine": engine,
        "fma_peak": max(peaks, default=0.0),
        "missing": missing,
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.compare_networks", description=__doc__)
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--batch", nargs="+", type=int, help="default: 1 and 16")
    parser.add_argument("--density", nargs="+", type=float, default=list(DENSITIES))
    parser.add_argument("--against", nargs="*", choices=PEERS, default=list(AGAINST))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="per candidate")
    parser.add_argument("--isa", help="portable, avx2 or avx512")
    parser.add_argument(
        "--torch-compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="torch may also be compiled: up to a minute per network and batch",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the json file")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    result = compare(
        {name: NETWORKS[name] for name in options.network},
        batches=options.batch,
        densities=options.density,
        against=options.against,
        threads=options.threads,
        seconds=options.seconds,
        torch_compile=options.torch_compile,
        isa=options.isa,
    )
    save(result, options.out / "networks.json")


if __name__ == "__main__":
    try:
        main()
    except Error as error:
        sys.exit(f"error: {error}")
