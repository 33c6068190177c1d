"""``python -m bench.channels_left``: what ``prune_channels`` leaves of the networks of the zoo.

Multiply-adds per image and parameters at a ratio of 0.5, of the file that an export writes and of
the torch model that ``compact`` makes, each over the unpruned network; and which channels stay in
any case, and why. Weights are random: how many channels go does not depend on them.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from bench.results import RESULTS, load, save
from kernelprune import models
from kernelprune.benchmarking import describe_machine
from kernelprune.frontends.torch.trace import trace
from kernelprune.graph.footprint import Footprint
from kernelprune.prune.compact import compact
from kernelprune.prune.criteria import prune_channels

RATIO = 0.5
# (network, side of the images, classes)
NETWORKS = (
    ("efficientnet_b0", 224, 1000),
    ("regnet_y_400mf", 224, 1000),
    ("shufflenet_v2", 224, 1000),
    ("mobilenet_v2", 224, 1000),
    ("mobilenet_v3_large", 224, 1000),
    ("convnext_tiny", 224, 1000),
    ("unet", 256, 21),
    ("yolov8n", 320, 80),
    ("resnet50", 224, 1000),
)


def measure_network(name: str, side: int, classes: int, **options: Any) -> dict[str, Any]:
    """One row. ``options``: of the model."""
    model = models.create(name, num_classes=classes, in_channels=3, seed=0, **options).eval()
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the row says it
        plan = prune_channels(model, x, ratio=RATIO)
    smaller = compact(model, x)
    assert plan.macs is not None and plan.macs_kept is not None
    tied: Counter[str] = Counter()
    for reasons in plan.tied.values():
        tied.update(reasons)
    in_torch = Footprint(trace(smaller, x)).dense.macs
    left = sum(parameter.numel() for parameter in smaller.parameters())
    return {
        "network": name, "side": side, "classes": classes, "ratio": RATIO,
        "macs": plan.macs, "macs_file": plan.macs_kept, "macs_torch": in_torch,
        "file": plan.macs_kept / plan.macs, "torch": in_torch / plan.macs,
        "parameters": parameters, "parameters_left": left,
        "parameters_share": left / parameters,
        "layers_tied": len(plan.tied), "channels_tied": dict(tied),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.channels_left", description=__doc__)
    names = [name for name, *_ in NETWORKS]
    parser.add_argument("--network", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS,
        help="folder of the json file; rows of networks that are not measured stay",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out / "channels-left.json"
    rows = {row["network"]: row for row in load(path)["rows"]} if path.exists() else {}
    for case in NETWORKS:
        if case[0] not in options.network:
            continue
        rows[case[0]] = row = measure_network(*case)
        print(
            f"{row['network']:<19} multiply-adds: {row['file']:.3f} in a file, {row['torch']:.3f} "
            f"in torch; parameters {row['parameters_share']:.3f}; {row['channels_tied']}",
            flush=True,
        )
        kept = [rows[name] for name in names if name in rows]
        save({"machine": describe_machine(), "rows": kept}, path)


if __name__ == "__main__":
    main()
