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

from kernelprune.benchmarking import BenchmarkResult, BenchOptions, benchmark
from kernelprune.benchmarking.machine import usable_cores
from kernelprune.cli.demo_table import layer_density_table, summary_table
from kernelprune.data import Dataset, load, steps_per_epoch
from kernelprune.files import check_writable, write_text
from kernelprune.frontends.torch import export
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
            augment=False,  # so few epochs underfit with it, on these centred images
            batch_size=128,
            learning_rate=0.1,
            threads=usable_cores(),
            seed=self.seed,
        )
        prune = PruneOptions(
            method="synaptic",
            density=0.1,
            macs=0.15,
            scope="global-normalised",  # the penalty is too short here for raw strengths
            penalty=1e-4,
            sparsify_epochs=1.0,
            sparsify_learning_rate=0.03,
            finetune_epochs=3.0,
            finetune_learning_rate=0.1,
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
        steps_scale: Share of the recipe's steps that were trained before pruning and for it; 1
            unless training is slow here.
        file: The pruned model file.
    """

    accuracy: dict[str, float]
    differing: int
    images: int
    race: BenchmarkResult
    plan: dict[str, Any]
    seconds: dict[str, float]
    steps_scale: tuple[float, float]
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
    demo = _Demo(out, options or DemoOptions(), console)
    dense = demo.train_dense()
    pruned, plan = demo.prune(copy.deepcopy(dense))
    accuracy, differing, images = demo.test(dense, pruned)
    race = demo.race()
    result = DemoResult(
        accuracy,
        differing,
        images,
        race,
        plan.to_dict(),
        demo.clock.seconds,
        demo.scales,
        demo.pruned_file,
    )
    text = json.dumps(result.to_dict(), indent=1) + "\n"
    write_text(out / "demo.json", text, "the result")
    _show(result, plan, demo.recipe.dataset, demo.show)
    return result


class _Demo:
    """The phases of the demo and what they share."""

    def __init__(self, out: Path, options: DemoOptions, console: Console | None) -> None:
        self.options, self.console = options, console
        self.show = console or Console(quiet=True)
        self.clock = _Clock()
        self.recipe, self.pruning = options.recipe()
        self.dense_file, self.pruned_file = out / "dense.safetensors", out / "pruned.safetensors"
        check_writable(out)
        recipe = self.recipe
        self.data = load(recipe.dataset, "train", path=recipe.data_path)
        self.validation = load(recipe.dataset, "validation", path=recipe.data_path)
        self.scales = (1.0, 1.0)
        self.show.print(
            f"{recipe.model} on {recipe.dataset}: {len(self.data):,} training images of "
            f"{'x'.join(map(str, self.data.shape))}, {recipe.threads} threads"
        )
        self.clock.lap("load")

    def time_left(self) -> float:
        """Seconds for training."""
        spent = self.clock.seconds["total"]
        return self.options.minutes * 60.0 - _OTHER_SECONDS - spent

    def export(self, model: nn.Module, file: Path, method: str) -> None:
        origin = {"architecture": self.recipe.model, "dataset": self.recipe.dataset}
        export(model, self.data.images[:1].clone(), file, **origin, method=method)

    def train_dense(self) -> nn.Module:
        recipe, pruning = self.recipe, self.pruning
        later = pruning.sparsify_epochs + pruning.finetune_epochs
        cost = _seconds_per_step(recipe, self.data)
        scale = _time_scale(
            recipe.epochs + later, recipe, self.data, cost, self.time_left(), self.show
        )
        model = make_model(recipe, len(self.data.classes), self.data.shape)
        trainer = Trainer(
            model,
            self.data,
            replace(recipe, epochs=recipe.epochs * scale),
            validation=self.validation,
            console=self.console,
        )
        cost = trainer.run().seconds / trainer.total_steps
        self.clock.lap("train")
        # Again, by what training really took: other programs may have come or gone.
        again = _time_scale(later, recipe, self.data, cost, self.time_left(), self.show)
        self.scales = (scale, again)
        self.export(model, self.dense_file, "dense")
        return model

    def prune(self, model: nn.Module) -> tuple[nn.Module, Plan]:
        model, plan = prune_model(
            model,
            _scaled(self.pruning, self.scales[1]),
            self.recipe,
            self.data,
            validation=self.validation,
            console=self.console,
        )
        self.export(model, self.pruned_file, self.pruning.method)
        self.clock.lap("prune")
        return model, plan

    def test(self, dense: nn.Module, pruned: nn.Module) -> tuple[dict[str, float], int, int]:
        """Accuracy of the three, on how many images engine and torch differ, and of how many."""
        data = load(self.recipe.dataset, "test", path=self.recipe.data_path)
        with torch_threads(self.recipe.threads):
            accuracy, differing = _compare(dense, pruned, self.pruned_file, data)
        self.clock.lap("test")
        return accuracy, differing, len(data)

    def race(self) -> BenchmarkResult:
        self.show.print("racing the engines ...")
        options = BenchOptions(
            batch=(1, 64),
            threads=self.options.threads,
            seconds=self.options.bench_seconds * (0.1 if self.options.quick else 1.0),
            dense_path=str(self.dense_file),
            per_layer=True,
        )
        result = benchmark(self.pruned_file, options=options)
        self.clock.lap("race")
        return result


def _seconds_per_step(train: TrainOptions, dataset: Dataset) -> float:
    """Trains a throw-away copy for a few steps, after some that set up torch's kernels."""
    model = make_model(train, len(dataset.classes), dataset.shape)

    def steps(count: int) -> float:
        trainer = Trainer(model, dataset, train)
        trainer.total_steps = count
        return trainer.run().seconds / count

    steps(2)
    return steps(6)


def _time_scale(
    epochs: float, train: TrainOptions, dataset: Dataset, cost: float, seconds: float, show: Console
) -> float:
    """The share of ``epochs`` that can be trained in ``seconds`` at ``cost`` seconds per step.

    A tenth at least: a demo that trains nothing shows nothing.
    """
    expected = epochs * steps_per_epoch(len(dataset), train.batch_size) * cost
    scale = max(seconds / expected, 0.1)
    if scale > 0.95:  # about enough; the margin of the other phases covers it
        scale = 1.0
    else:
        show.print(
            f"training is slow here ({train.batch_size / cost:,.0f} images/s): "
            f"{scale:.0%} of the recipe's steps"
        )
    return scale


def _scaled(prune: PruneOptions, scale: float) -> PruneOptions:
    return replace(
        prune,
        sparsify_epochs=prune.sparsify_epochs * scale,
        finetune_epochs=prune.finetune_epochs * scale,
    )


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
