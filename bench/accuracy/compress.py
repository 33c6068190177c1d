"""``python -m bench.accuracy.compress``: what speed costs, without labels and without training.

Networks are trained as for the tables of docs/ACCURACY.md. ``kernelprune.compress`` makes each a
half, a quarter and an eighth as slow as the dense float32 network, and in int8 a half and a third
as slow as the dense int8 network; beside it stands plain L1 pruning, the same density in every
layer and batch norms measured anew, in as much time. The engine computes all test images. One row
is saved after each network; an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

import kernelprune as kp
from bench.accuracy.quantized import NETWORKS, by_engine
from bench.results import RESULTS, load as load_result, save
from kernelprune.benchmarking import describe_machine
from kernelprune.compression.timing import engine_timer
from kernelprune.data import Dataset, load
from kernelprune.errors import Error
from kernelprune.prune import recalibrate
from kernelprune.train import TrainOptions, fit, load_checkpoint, load_model

RESULT = RESULTS / "accuracy-compress.json"
IMAGES = 640  # unlabelled training images
# Times of the dense network of the same precision are divided by these.
FACTORS = {"float32": (2.0, 4.0, 8.0), "int8": (2.0, 3.0)}
_HALVINGS = 7  # of the density of plain L1


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy.compress", description=__doc__)
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=1.0, help="a factor for all epochs")
    parser.add_argument("--batch", type=int, default=1, help="images of a timed run")
    parser.add_argument("--work", type=Path, default=Path("runs/accuracy-compress"))
    parser.add_argument("--out", type=Path, default=RESULT, help="the json file")
    parser.add_argument("--quick", action="store_true", help="on 8x8 digits, to try it out")
    options = parser.parse_args(arguments)
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "calibration_images": IMAGES,
        "rows": [],
    }
    if options.out.exists():
        result["rows"] = load_result(options.out)["rows"]
    torch.set_num_threads(1)
    console = Console()
    for seed in options.seed:
        for name in options.network:
            settings = _settings(name, seed, options)
            for precision, factors in FACTORS.items():
                for factor in factors:
                    key = {
                        "network": name, "seed": seed, "precision": precision, "factor": factor,
                        "batch": options.batch, "training": settings.to_dict(),
                    }  # fmt: skip
                    if any(key.items() <= row.items() for row in result["rows"]):
                        continue
                    row = measured(key, settings, options, console)
                    result["rows"].append(row)
                    save(result, options.out)
                    console.print(_said(row), highlight=False)


def _settings(name: str, seed: int, options: argparse.Namespace) -> TrainOptions:
    whole = NETWORKS[name]("l1")[0]
    if options.quick:
        whole = replace(whole, dataset="digits", limit=256)
    return replace(whole, seed=seed, epochs=options.epochs * whole.epochs)


def measured(
    key: dict[str, Any], settings: TrainOptions, options: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """One row: compress, and plain L1 in as much time."""
    place = options.work / f"{key['network']}-seed{key['seed']}"
    fit(settings, place, resume=True, console=console)
    model = load_model(load_checkpoint(place))[0].eval()
    split = load(settings.dataset, "train").first(settings.limit or IMAGES)
    images = split.images[:IMAGES]
    test = load(settings.dataset, "test")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dense = folder / "dense.safetensors"
        kp.export(model, images[:2], dense)
        try:
            found = _compressed(model, images, key)
        except Error as error:  # such as a time that no network of these layers reaches
            return key | {"reason": str(error)}
        path = folder / "compressed.safetensors"
        found.save(path)
        l1 = _plain_l1(model, images, key, dense, found.chosen.speed_up, folder)
        return key | {
            "compress": found.to_dict(),
            "accuracy": {
                "dense": by_engine(model, test, dense),
                "compress": _of_file(path, test),
                "l1": _of_file(folder / "l1.safetensors", test),
            },
            "l1": l1,
        }


def _compressed(model: nn.Module, images: torch.Tensor, key: dict[str, Any]) -> Any:
    """In int8 the factor is of the dense int8 network's time, which is measured first."""
    more: dict[str, Any] = {
        "calibration": images, "precision": key["precision"], "batch": key["batch"],
    }  # fmt: skip
    factor = key["factor"]
    if key["precision"] == "int8":
        whole = kp.compress(model, images[:1], speed_up=1.001, **more)
        factor *= next(p.speed_up for p in whole.points if p.name == "dense int8")
    return kp.compress(model, images[:1], speed_up=factor, **more)


def _plain_l1(
    model: nn.Module,
    images: torch.Tensor,
    key: dict[str, Any],
    dense: Path,
    speed_up: float,
    folder: Path,
) -> dict[str, Any]:
    """Writes the file with the highest density that is as fast; its density and speed-up."""
    timer = engine_timer(key["batch"], 1)
    low, high = 0.0, 1.0
    best: dict[str, Any] = {}
    for _ in range(_HALVINGS):
        density = (low + high) / 2
        path = folder / f"l1-{density:.4f}.safetensors"
        _write_l1(model, images, density, key["precision"], path)
        own, whole = timer([path, dense])
        found = whole.milliseconds / own.milliseconds
        if found >= speed_up or not best:
            best = {"density": density, "speed_up": found}
            path.replace(folder / "l1.safetensors")
        low, high = (density, high) if found >= speed_up else (low, density)
    return best


def _write_l1(
    model: nn.Module, images: torch.Tensor, density: float, precision: str, path: Path
) -> None:
    pruned = copy.deepcopy(model)
    group = 4 if precision == "int8" else 1
    kp.prune_connections(pruned, density=density, x=images[:1], scope="layer", group=group)
    recalibrate(pruned, images.split(64))
    kp.export(kp.quantize(pruned, images) if precision == "int8" else pruned, images[:2], path)


def _of_file(path: Path, test: Dataset) -> float:
    """The share of the test images that the engine classifies right."""
    engine = kp.Engine(path)
    right = 0
    for start in range(0, len(test), 256):
        part = slice(start, start + 256)
        found = engine.run(test.images[part].float())
        right += int((found.argmax(1) == test.labels[part]).sum())
    return right / len(test)


def _said(row: dict[str, Any]) -> str:
    if "reason" in row:
        return f"{row['network']} {row['precision']} 1/{row['factor']:g}: {row['reason']}"
    accuracy, l1 = row["accuracy"], row["l1"]
    return (
        f"{row['network']} {row['precision']} 1/{row['factor']:g}: dense {accuracy['dense']:.2%}, "
        f"compress {accuracy['compress']:.2%}, l1 {accuracy['l1']:.2%} "
        f"({l1['speed_up']:.3g} times as fast)"
    )


if __name__ == "__main__":
    main()
