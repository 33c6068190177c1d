"""``python -m bench.accuracy.reconstruction``: pruning without labels and without training.

Trains small networks for a few epochs (or takes the checkpoints of an earlier
run), prunes them to a few densities, the same in every layer, and tests them at once: by the
kernels' norms, with batch norms measured anew, and by reconstruction. All see the same unlabelled
training images. One thread; seconds are of one core.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from bench.results import RESULTS, save
from kernelprune import prune_connections, reconstruct
from kernelprune.benchmarking import describe_machine
from kernelprune.data import Dataset, load
from kernelprune.prune import Plan, recalibrate
from kernelprune.train import TrainOptions, accuracy, fit, load_checkpoint, load_model

# Name and options; those of the tables of accuracy.
NETWORKS: dict[str, dict[str, Any]] = {"resnet20": {"width": 0.5}, "vgg16": {"width": 0.25}}
# A model, unlabelled images, and the limit.
Prune = Callable[[nn.Module, torch.Tensor, float], Plan]
DENSITIES = (0.5, 0.3, 0.1)
MACS = (0.3, 0.1)
_IMAGES = 256


def _l1(model: nn.Module, images: torch.Tensor, density: float) -> Plan:
    return prune_connections(model, density=density, x=images[:1], scope="layer")


def _l1_measured(model: nn.Module, images: torch.Tensor, density: float) -> Plan:
    plan = _l1(model, images, density)
    recalibrate(model, images.split(64))
    return plan


def _fitted(method: str) -> Prune:
    return lambda model, images, density: reconstruct(model, images, density=density, method=method)


METHODS: dict[str, Prune] = {
    "l1": _l1,
    "l1, batch norms": _l1_measured,
    "reconstruct l1": _fitted("l1"),
    "reconstruct omp": _fitted("omp"),
    "reconstruct obs": _fitted("obs"),
}


def _trained(name: str, asked: argparse.Namespace, console: Console) -> nn.Module:
    options = TrainOptions(
        model=name, model_options=NETWORKS[name], dataset=asked.dataset, epochs=asked.epochs,
        batch_size=64, learning_rate=0.1, limit=asked.images, threads=1,
    )  # fmt: skip
    place = asked.work / f"{asked.dataset}-{name}-{asked.epochs:g}-epochs-{asked.images}-images"
    fit(options, place, resume=True, console=console)
    return load_model(load_checkpoint(place))[0].eval()


def _spread(data: Dataset, count: int) -> torch.Tensor:
    return data.images[torch.linspace(0, len(data) - 1, count).long()]


def _within(model: nn.Module, images: torch.Tensor, macs: float) -> Plan:
    return reconstruct(model, images, macs=macs)


def _row(
    dense: nn.Module, prune: Prune, images: torch.Tensor, limit: float, test: Dataset
) -> dict[str, Any]:
    model = copy.deepcopy(dense)
    started = time.perf_counter(), time.process_time()
    plan = prune(model, images, limit)
    return {
        "seconds": time.perf_counter() - started[0],
        "processor_seconds": time.process_time() - started[1],
        "accuracy": accuracy(model, test),
        "density": plan.prunable_density,
        "macs_density": plan.macs_density,
        "warnings": plan.warnings,
    }


def measure(
    name: str, options: argparse.Namespace, console: Console, keep: Callable[[dict[str, Any]], None]
) -> None:
    """All methods on one network; ``keep`` is called with every row."""
    dense = _trained(name, options, console)
    test = load(options.dataset, "test").first(options.test)
    images = _spread(load(options.dataset, "train"), _IMAGES)
    common = {"network": name, "options": NETWORKS[name], "dense": accuracy(dense, test)}
    for density in DENSITIES:
        for method, prune in METHODS.items():
            row = _row(dense, prune, images, density, test)
            keep({**common, "method": method, "asked": {"density": density}, **row})
    for macs in MACS:
        row = _row(dense, _within, images, macs, test)
        keep({**common, "method": "reconstruct omp", "asked": {"macs": macs}, **row})


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.accuracy.reconstruction", description=__doc__
    )
    parser.add_argument("--models", nargs="+", default=["resnet20"], choices=list(NETWORKS))
    parser.add_argument("--dataset", default="fashion-mnist", choices=["fashion-mnist", "digits"])
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--images", type=int, default=6000, help="to train with")
    parser.add_argument("--test", type=int, default=2000, help="images to test with")
    parser.add_argument("--work", type=Path, default=Path("runs/reconstruction"))
    parser.add_argument("--out", type=Path, default=RESULTS / "accuracy" / "reconstruction.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    result: dict[str, Any] = {
        "calibration_images": _IMAGES,
        "dataset": options.dataset,
        "epochs": options.epochs,
        "training_images": len(load(options.dataset, "train").first(options.images)),
        "test_images": len(load(options.dataset, "test").first(options.test)),
        "machine": describe_machine(),
        "rows": [],
    }

    def keep(row: dict[str, Any]) -> None:
        result["rows"].append(row)
        save(result, options.out)
        words = f"{row['network']} {row['method']} {row['asked']}: {row['accuracy']:.2%}"
        console.print(f"{words}, {row['processor_seconds']:.1f} s", highlight=False)

    for name in options.models:
        measure(name, options, console, keep)


if __name__ == "__main__":
    main()
