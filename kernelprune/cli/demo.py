"""``kernelprune demo``: one network from training to the race, in at most 6 minutes.

The recipe was found by experiment on two cores of a server processor with AVX-512; where training
is slower, the number of steps is cut so that the demo still ends in time, and it says so.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import nn

from kernelprune.benchmark import BenchmarkResult, BenchOptions, benchmark
from kernelprune.benchmark.machine import usable_cores
from kernelprune.capture import export
from kernelprune.cli.demo_table import layer_density_table, summary_table
from kernelprune.data import Dataset, load
from kernelprune.errors import Error
from kernelprune.prune import Plan
from kernelprune.runtime import Engine
from kernelprune.train import PruneOptions, Trainer, TrainOptions, predict
from kernelprune.train.loop import make_model, torch_threads
from kernelprune.train.pruning import prune_model

# What loading, export, test and race take of the demo's time.
_OTHER_SECONDS = 45.0


@dataclass(frozen=True)
class DemoOptions:
    """How the demo runs.

    Attributes:
        quick: scikit-learn's digits and a narrow network: seconds, for tests.
        threads: Of every engine in the race. Training takes all cores.
        data_path: Folder with the data set's files.
        seed: Of weights and batches.
        bench_seconds: Per engine and batch size; a tenth of it with ``quick``.
        minutes: The demo should not take longer; fewer steps are trained if it would.
    """

    quick: bool = False
    threads: int = 1
    data_path: str | None = None
    seed: int = 1
    bench_seconds: float = 2.0
    minutes: float = 5.5

    def recipe(self) -> tuple[TrainOptions, PruneOptions]:
        """The dense training, and pruning with what goes before and after it."""
        train = TrainOptions(
            model="vgg_small",
            dataset="fashion-mnist",
            data_path=self.data_path,
            epochs=3.5,
            batch_size=128,
            learning_rate=0.1,
            threads=usable_cores(),
            seed=self.seed,
        )
        prune = PruneOptions(
            method="synaptic",
            density=0.1,
            macs=0.15,
            penalty=1e-4,
            sparsify_epochs=1.0,
            sparsify_learning_rate=0.03,
            finetune_epochs=3.0,
            finetune_learning_rate=0.05,
            seed=self.seed,
        )
        if self.quick:
            narrow = {"width": 0.5}
            train = replace(
                train,
                dataset="digits",
                model_options=narrow,
                epochs=6.0,
                batch_size=64,
                threads=1,
            )
            prune = replace(prune, sparsify_epochs=3.0, finetune_epochs=9.0)
        return train, prune


@dataclass(frozen=True)
class DemoResult:
    """What the demo found; all of it is in ``demo.json``.

    Attributes:
        accuracy: On the test images, of ``"dense"``, ``"pruned"`` (both torch) and ``"engine"``.
        differing: Test images on which the engine and torch predict different classes.
        images: Test images.
        race: The benchmark of the pruned file, the peers running the dense one.
        plan: What pruning kept, layer by layer.
        seconds: Of each phase.
        steps_scale: Share of the recipe's steps that were trained; 1 unless training is slow here.
        file: The pruned model file.
    """

    accuracy: dict[str, float]
    differing: int
    images: int
    race: BenchmarkResult
    plan: dict[str, Any]
    seconds: dict[str, float]
    steps_scale: float
    file: Path

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; files by name only."""
        values = {
            entry.name: getattr(self, entry.name)
            for entry in dataclasses.fields(self)
            if entry.name not in ("race", "file")
        }
        return {**values, "file": self.file.name, "race": self.race.to_dict()}


class _Clock:
    """Seconds of each phase."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.last = self.started
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self.last
        self.seconds["total"] = now - self.started
        self.last = now


def run_demo(
    out: Path, options: DemoOptions | None = None, console: Console | None = None
) -> DemoResult:
    """Trains, prunes, exports and races one network, and prints one table.

    Writes ``dense.safetensors``, ``pruned.safetensors`` and ``demo.json`` into ``out``. Decisions
    are made on validation images; the test images are looked at once, at the end.

    Args:
        out: Folder for the results; made if missing.
        options: See :class:`DemoOptions`.
        console: Where to print; None prints nothing.

    Returns:
        What was found.

    Raises:
        Error: Data missing, or ``out`` cannot be written.
    """
    options = options or DemoOptions()
    show = console or Console(quiet=True)
    clock = _Clock()
    train, prune = options.recipe()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Error(f"cannot make the folder {out}: {error.strerror}") from error
    dataset = load(train.dataset, "train", path=train.data_path)
    validation = load(train.dataset, "validation", path=train.data_path)
    model = make_model(train, len(dataset.classes), dataset.shape)
    show.print(
        f"{train.model} on {train.dataset}: {len(dataset):,} training images of "
        f"{'x'.join(map(str, dataset.shape))}, {train.threads} threads"
    )
    clock.lap("load")
    train, prune, scale = _fit_time(train, prune, dataset, options.minutes, show)

    trainer = Trainer(model, dataset, train, validation=validation, title="train", console=console)
    trainer.run()
    clock.lap("train")
    example = dataset.images[:1].clone()
    origin = {"architecture": train.model, "dataset": train.dataset}
    dense_file, pruned_file = out / "dense.safetensors", out / "pruned.safetensors"
    export(model, example, dense_file, **origin, method="dense")
    dense = copy.deepcopy(model)
    model, plan = prune_model(model, prune, train, dataset, validation=validation, console=console)
    clock.lap("prune")
    export(model, example, pruned_file, **origin, method=prune.method)
    clock.lap("export")

    test = load(train.dataset, "test", path=train.data_path)
    with torch_threads(train.threads):
        accuracy, differing = _compare(dense, model, pruned_file, test)
    clock.lap("test")
    show.print("racing the engines ...")
    race = benchmark(
        pruned_file,
        options=BenchOptions(
            batch=(1, 64),
            threads=options.threads,
            seconds=options.bench_seconds * (0.1 if options.quick else 1.0),
            dense_path=str(dense_file),
            per_layer=True,
        ),
    )
    clock.lap("race")
    result = DemoResult(
        accuracy, differing, len(test), race, plan.to_dict(), clock.seconds, scale, pruned_file
    )
    _write_json(out / "demo.json", result.to_dict())
    _show(result, plan, train.dataset, show)
    return result


def _fit_time(
    train: TrainOptions, prune: PruneOptions, dataset: Dataset, minutes: float, show: Console
) -> tuple[TrainOptions, PruneOptions, float]:
    """The recipe with fewer steps, if this machine cannot train all of them in time.

    Times a few steps of a throw-away copy, the first ones apart: they set up torch's kernels.
    """
    model = make_model(train, len(dataset.classes), dataset.shape)
    probe = replace(train, epochs=1e-9, augment=True)

    def steps(count: int) -> float:
        trainer = Trainer(model, dataset, probe)
        trainer.total_steps = count
        return trainer.run().seconds / count

    steps(2)
    cost = steps(6)
    epochs = train.epochs + prune.sparsify_epochs + prune.finetune_epochs
    expected = epochs * (len(dataset) // train.batch_size) * cost
    scale = min(1.0, max(minutes * 60.0 - _OTHER_SECONDS, 1.0) / expected)
    if scale == 1.0:
        return train, prune, scale
    show.print(
        f"training is slow here ({train.batch_size / cost:,.0f} images/s): "
        f"{scale:.0%} of the recipe's steps"
    )
    train = replace(train, epochs=train.epochs * scale)
    prune = replace(
        prune,
        sparsify_epochs=prune.sparsify_epochs * scale,
        finetune_epochs=prune.finetune_epochs * scale,
    )
    return train, prune, scale


def _compare(
    dense: nn.Module, pruned: nn.Module, file: Path, test: Dataset
) -> tuple[dict[str, float], int]:
    """Accuracy of the three, and on how many images the engine differs from torch."""
    engine = Engine(file, threads=usable_cores())
    labels = test.labels.numpy()
    predicted = {
        "dense": predict(dense, test.images),
        "pruned": predict(pruned, test.images),
        "engine": predict(engine.run, test.images),
    }
    accuracy = {name: float(np.mean(classes == labels)) for name, classes in predicted.items()}
    return accuracy, int(np.count_nonzero(predicted["pruned"] != predicted["engine"]))


def _write_json(path: Path, values: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise Error(f"cannot write {path}: {error.strerror}") from error


def _show(result: DemoResult, plan: Plan, dataset: str, show: Console) -> None:
    show.print()
    show.print(summary_table(result.accuracy, result.differing, result.images, result.race))
    for name, reason in result.race.missing.items():
        show.print(f"{name}: {reason}")
    show.print(layer_density_table(plan, result.race))
    minutes, seconds = divmod(result.seconds["total"], 60)
    show.print(f"\nDone in {minutes:.0f} min {seconds:.0f} s. The pruned network is {result.file}")
    show.print(f"(its dense origin and all figures lie beside it, in {result.file.parent}). Next:")
    show.print(f"  kernelprune inspect {result.file}")
    show.print(f"  kernelprune run {result.file} --data {dataset}")
    show.print(f"  kernelprune bench {result.file} --batch 1,16,64 --per-layer")
