"""Where the time of the networks goes: ``python -m bench.bounds``.

Layer by layer, added up by kernel: the measured time; the time that its multiply-adds (those that
are done: after the transforms, for Winograd's method) would take at the FMA peak measured in the
same run; and how the cost model splits what it expects over products, transforms with loads and
stores, loops, and weights from behind the first cache. What bounds a kernel is where the rest is.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.calibrate import table_rates
from bench.networks import NETWORKS
from bench.results import RESULTS, save
from kernelprune import _core
from kernelprune.benchmarking import describe_machine
from kernelprune.format import write
from kernelprune.runtime import Engine, fma_peak

# Rates of the cost model, by what they stand for.
PARTS = {
    "products": ("macs",),
    "transforms": ("moved_floats",),
    "loops": ("lookups", "output_tiles"),
    "far loads": ("uncached_macs",),
}


def measure_network(name: str, density: float, batch: int, rounds: int) -> dict[str, Any]:
    """Milliseconds per batch by kernel, on one thread; medians over ``rounds`` profiles."""
    network = NETWORKS[name]
    side = network.side
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        write(network.graph(density), path)
        engine = Engine(path)
        # Large batches run in groups of so many images, one after the other.
        group = max(engine.plan.planar_nodes, default=1)
        lanes = group if batch % group == 0 else 1
        planar = engine.plan.planar_nodes.get(lanes, 0)
        stages_of = {
            (mode, layer.node): way.stages
            for mode in {lanes, 1}
            for layer in _core.Engine.load(str(path), 1, engine.isa, mode).candidates
            for way in layer.candidates
            if layer.lanes == mode and way.name == layer.chosen
        }
    x = np.random.default_rng(0).standard_normal((batch, 3, side, side), dtype=np.float32)
    profiles, peaks = [], []
    for _ in range(rounds):
        profiles.append(engine.profile(x, repeats=3))
        peaks.append(fma_peak(engine.isa))
    milliseconds = np.median([[row.milliseconds for row in rows] for rows in profiles], axis=0)
    rates, peak = table_rates(engine.isa), float(np.median(peaks))
    kernels: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for node, (row, time) in enumerate(zip(profiles[0], milliseconds, strict=True)):
        mode = 1 if node < planar else lanes
        stages = stages_of.get((mode, row.name), ())
        main = stages[-1].kernel if stages else row.kernel.partition("/")[0]
        sums = kernels[main]
        sums["layers"] += 1
        sums["milliseconds"] += float(time)
        groups = batch // mode
        for stage in stages:
            sums["at_peak"] += groups * stage.macs / peak * 1e3
            for part, terms in PARTS.items():
                for term in terms:
                    rate = rates.get((stage.kernel, stage.vector_width, term), 0.0)
                    sums[part] += groups * rate * getattr(stage, term) * 1e-6
    total = float(milliseconds.sum())
    ordered = sorted(kernels.items(), key=lambda item: -item[1]["milliseconds"])
    return {
        "network": name,
        "density": density,
        "batch": batch,
        "isa": engine.isa,
        "fma_peak": peak,
        "milliseconds": total,
        "kernels": [{"kernel": kernel, **sums} for kernel, sums in ordered],
    }


def show(row: dict[str, Any], least: float = 0.02) -> None:
    """One network as a table; kernels below the share ``least`` of the time are added up."""
    print(
        f"\n{row['network']} density {row['density']:g} batch {row['batch']}: "
        f"{row['milliseconds']:.2f} ms, of which the model expects"
    )
    print(
        f"{'kernel':<26}{'layers':>7}{'ms':>9}{'at peak':>9}" + "".join(f"{p:>12}" for p in PARTS)
    )
    small: dict[str, float] = defaultdict(float)
    for found in row["kernels"]:
        if found["milliseconds"] < least * row["milliseconds"]:
            for key in ("layers", "milliseconds"):
                small[key] += found[key]
            continue
        parts = "".join(f"{found.get(part, 0.0):>12.2f}" for part in PARTS)
        print(
            f"{found['kernel']:<26}{found['layers']:>7.0f}{found['milliseconds']:>9.2f}"
            f"{found.get('at_peak', 0.0):>9.2f}{parts}"
        )
    if small:
        print(f"{'others':<26}{small['layers']:>7.0f}{small['milliseconds']:>9.2f}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.bounds", description=__doc__)
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--density", nargs="+", type=float, default=[0.3, 0.1, 0.05])
    parser.add_argument(
        "--batch", nargs="+", type=int, help="1, or a multiple of 16; default: those of the network"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the json file")
    options = parser.parse_args(arguments)
    machine, rows = describe_machine(), []
    for name in options.network:
        for density in options.density:
            for batch in options.batch or NETWORKS[name].batches:
                rows.append(measure_network(name, density, batch, options.rounds))
                show(rows[-1])
    options.out.mkdir(parents=True, exist_ok=True)
    save({"machine": machine, "rows": rows}, options.out / "bounds.json")


if __name__ == "__main__":
    main()
