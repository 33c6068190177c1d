"""``python -m bench.accuracy.quantized``: what bytes cost, in points of accuracy.

Networks are trained and pruned as for the tables of docs/ACCURACY.md, whole and at 0.1 of their
connections. Each is exported three times: in float32, in int8 after calibration on training images
without labels, and in int8 after some epochs of training with bytes. The engine computes all test
images. One row is saved after each network and seed; an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

import kernelprune as kp
from bench.accuracy.rows import ROWS
from kernelprune.benchmarking import describe_machine
from kernelprune.data import Dataset, load
from kernelprune.files import write_text
from kernelprune.prune.counts import count
from kernelprune.prune.masks import attach_masks
from kernelprune.train import (
    PruneOptions,
    Trainer,
    TrainOptions,
    accuracy,
    fit,
    latest_checkpoint,
    load_checkpoint,
    prune_run,
)

RESULT = Path(__file__).parent.parent / "results" / "accuracy-int8.json"
DENSITY = 0.1
CALIBRATION = 256  # training images
# Of the training with bytes: a small rate, since the network is trained already. In float32: bytes
# have as many bits as the mantissa of bfloat16, which would round them again.
_AWARE = {"learning_rate": 0.005, "schedule": "cosine", "precision": "float32"}
_KINDS = ("float32", "int8", "int8-trained")


# How the whole network is trained, how the one that is pruned, and how that is pruned.
Settings = tuple[TrainOptions, TrainOptions, PruneOptions]


def _mobilenet(method: str) -> Settings:
    """The tables of the pruning methods have none; as the others, but for its own width."""
    whole, shorter, pruning = _of_rows("resnet20", method)
    own = {"model": "mobilenet_v2", "model_options": {"width": 0.5, "stem": "cifar"}}
    # Its depthwise layers have as few connections as channels.
    pruning = replace(pruning, penalty=None, scope="global-normalised", recalibrate=20)
    return replace(whole, **own), replace(shorter, **own), pruning


def _of_rows(model: str, method: str) -> Settings:
    row = ROWS[f"{model}-{method}-{DENSITY}"]
    return ROWS[f"{model}-l1-{DENSITY}"].train, row.train, row.candidates[0]


NETWORKS: dict[str, Callable[[str], Settings]] = {
    "vgg16": lambda method: _of_rows("vgg16", method),
    "resnet20": lambda method: _of_rows("resnet20", method),
    "mobilenet_v2": _mobilenet,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy.quantized", description=__doc__)
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=1.0, help="a factor for all epochs")
    parser.add_argument("--method", choices=("synaptic", "l1"), default="synaptic", help="pruning")
    parser.add_argument("--aware-epochs", type=float, default=2.0, help="of training with bytes")
    parser.add_argument("--work", type=Path, default=Path("runs/accuracy-int8"), help="checkpoints")
    parser.add_argument("--out", type=Path, default=RESULT, help="the json file")
    parser.add_argument("--quick", action="store_true", help="on 8x8 digits, to try it out")
    parser.add_argument("--table", action="store_true", help="only print what --out holds")
    options = parser.parse_args(arguments)
    rows = json.loads(options.out.read_text("utf-8"))["rows"] if options.out.exists() else []
    for seed in options.seed if not options.table else []:
        for name in options.network:
            settings = _settings(name, options.method, options.epochs, options.quick)
            place = options.work / f"{name}-seed{seed}"
            for row in measured(name, seed, settings, options.aware_epochs, place):
                rows = _with(rows, row)
                options.out.parent.mkdir(parents=True, exist_ok=True)
                write_text(options.out, json.dumps({"rows": rows}, indent=1) + "\n")
    print(table(rows))


def _with(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """In order, in place of an older row of the same kind."""
    alike = ("network", "seed", "density")
    others = [each for each in rows if any(each[key] != row[key] for key in alike)]
    order = list(NETWORKS)
    return sorted(
        [*others, row], key=lambda r: (order.index(r["network"]), -r["density"], r["seed"])
    )


def _settings(name: str, method: str, factor: float, quick: bool) -> Settings:
    whole, shorter, pruning = NETWORKS[name](method)
    if quick:
        own = {"dataset": "digits", "limit": 256}
        whole, shorter = replace(whole, **own), replace(shorter, **own)
    return (
        replace(whole, epochs=factor * whole.epochs),
        replace(shorter, epochs=factor * shorter.epochs),
        replace(
            pruning,
            sparsify_epochs=factor * pruning.sparsify_epochs,
            finetune_epochs=factor * pruning.finetune_epochs,
        ),
    )


def measured(
    name: str, seed: int, settings: Settings, aware_epochs: float, place: Path
) -> Iterator[dict[str, Any]]:
    """The rows of the whole network and of the pruned one. What ``place`` has of them, made with
    the same settings, is not done again."""
    whole, shorter, pruning = settings
    whole, shorter = replace(whole, seed=seed), replace(shorter, seed=seed)
    pruning = replace(pruning, seed=seed)
    aware = replace(whole, epochs=aware_epochs, **_AWARE)
    console = Console()
    console.rule(f"{name}, seed {seed}")

    def dense() -> nn.Module:
        return fit(whole, place / "whole", resume=True, console=console).model

    def pruned() -> nn.Module:
        source = place / "whole"
        if shorter != whole:
            source = place / "shorter"
            fit(shorter, source, resume=True, console=console)
        return prune_run(
            source, pruning, place / pruning.method, resume=True, console=console
        ).model

    epochs = shorter.epochs + pruning.finetune_epochs
    if pruning.method == "synaptic":
        epochs += pruning.sparsify_epochs
    for density, trained, make in ((1.0, whole.epochs, dense), (DENSITY, epochs, pruned)):
        row = {
            "network": name,
            "density": density,
            "seed": seed,
            "method": pruning.method if density < 1 else None,
            "epochs": {"training": trained, "aware": aware_epochs},
            "images": {"training": whole.limit, "calibration": CALIBRATION},
            "settings": [each.to_dict() for each in (whole, shorter, pruning, aware)],
        }
        done = place / f"row-{density:g}.json"
        found = json.loads(done.read_text("utf-8")) if done.exists() else {}
        if any(found.get(key) != value for key, value in row.items()):
            model = make()
            counts = count(model, load(whole.dataset, "test").images[:1])
            found = row | {
                "connections": [counts.connections_kept, counts.connections],
                "macs": [counts.macs_kept, counts.macs],
                "accuracy": accuracies(model, aware, place / f"aware-{density:g}", console),
                "machine": describe_machine(),
            }
            write_text(done, json.dumps(found, indent=1) + "\n")
        yield found


def accuracies(
    model: nn.Module, options: TrainOptions, folder: Path, console: Console
) -> dict[str, float]:
    """Of the three files of one network, by the engine, on the test images; ``options`` and
    ``folder``: of the training with bytes. The model stays as it is."""
    images = load(options.dataset, "train").first(options.limit or CALIBRATION)
    calibration = images.images[:CALIBRATION]
    test = load(options.dataset, "test")
    folder.mkdir(parents=True, exist_ok=True)
    twin = copy.deepcopy(model)
    attach_masks(twin, _dropped(twin))
    aware = kp.QuantizationAware(twin, calibration, method="mse")
    trainer = Trainer(twin, images, options, folder=folder, title="bytes", console=console)
    found = latest_checkpoint(folder)
    if found is not None:
        trainer.restore(load_checkpoint(found))
    trainer.run()
    kinds = {
        "float32": model,
        "int8": kp.quantize(model, calibration, method="mse"),
        "int8-trained": aware.quantize(),
    }
    return {kind: by_engine(each, test, folder / f"{kind}.safetensors")
            for kind, each in kinds.items()}  # fmt: skip


def _dropped(model: nn.Module) -> dict[str, torch.Tensor]:
    """Masks of the layers of which connections are zero."""
    masks = {
        name: (module.weight.detach().flatten(2) != 0).any(2)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    return {name: mask for name, mask in masks.items() if not bool(mask.all())}


def by_engine(model: nn.Module, test: Dataset, path: Path) -> float:
    """Exports to ``path``; the share of the test images that the engine classifies right."""
    kp.export(model, test.images[:1], path)
    return accuracy(kp.Engine(path).run, test)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over the seeds, in percent of the test images, and what int8 changes, in points."""
    lines = [
        "| network | density | seeds | float32 | int8, calibrated | int8, trained with bytes |",
        "|" + "---|" * 6,
    ]
    for name, density in dict.fromkeys((row["network"], row["density"]) for row in rows):
        own = [r["accuracy"] for r in rows if (r["network"], r["density"]) == (name, density)]
        means = {kind: 100 * statistics.fmean(each[kind] for each in own) for kind in _KINDS}
        cells = [f"{means['float32']:.2f}"]
        cells += [
            f"{means[kind]:.2f} ({means[kind] - means['float32']:+.2f})" for kind in _KINDS[1:]
        ]
        lines.append(f"| {name} | {density:g} | {len(own)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
