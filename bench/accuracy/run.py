"""One row: train, prune with every candidate, choose by validation, then test once."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from bench.accuracy.rows import Row
from kernelprune.benchmarking import describe_machine
from kernelprune.data import Dataset, load
from kernelprune.files import write_text
from kernelprune.prune.compact import compact
from kernelprune.train import (
    PruneOptions,
    PruneResult,
    TrainOptions,
    accuracy,
    fit,
    load_checkpoint,
    load_model,
    prune_run,
)


def run_row(
    name: str, row: Row, seeds: Sequence[int], work: Path, out: Path, console: Console | None
) -> dict[str, Any]:
    """Writes ``out/<name>.json``; checkpoints go to ``work``, and an interrupted run goes on."""
    started = time.perf_counter()
    found_by: list[dict[str, Any]] = []
    results: dict[tuple[int, int], PruneResult] = {}

    def prune(position: int, seed: int) -> float:
        """The accuracy on the validation images."""
        dense = _train(row.train, seed, work, console)
        options = replace(row.candidates[position], seed=seed)
        place = work / name / f"candidate{position}-seed{seed}"
        began = time.perf_counter()
        results[position, seed] = result = _prune(dense, options, place, console)
        found_by[position]["validation"].append(result.validation[1])
        # Of pruning and fine-tuning; less where a run went on.
        found_by[position]["minutes"].append((time.perf_counter() - began) / 60)
        return result.validation[1]

    for options in row.candidates:
        found_by.append({"prune": options.to_dict(), "validation": [], "minutes": []})
    first = [prune(position, seeds[0]) for position in range(len(row.candidates))]
    chosen = first.index(max(first))
    for seed in seeds[1:]:
        prune(chosen, seed)
    pruned = [results[chosen, seed] for seed in seeds]
    test = load(row.train.dataset, "test", path=row.train.data_path)
    seconds_before = time.perf_counter() - started
    dense_models = [_dense_model(row.train, seed, work) for seed in seeds]
    found = {
        "row": name,
        "seeds": list(seeds),
        "train": row.train.to_dict(),
        "candidates": found_by,
        "chosen": chosen,
        "dense": _summary([accuracy(model, test) for model in dense_models]),
        "pruned": _summary([accuracy(result.model, test) for result in pruned]),
        "kept": [_kept(result, test) for result in pruned],
        "layers": pruned[0].plan.to_dict()["layers"],
        "seconds": seconds_before,
        "machine": describe_machine(),
    }
    if row.fit:
        found["fit"] = _fit(row.train, [result.model for result in pruned])
    if row.control:
        found["from_scratch"] = _summary(
            [_from_scratch(row, chosen, work / name, seed, test, console) for seed in seeds]
        )
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / f"{name}.json", json.dumps(found, indent=1) + "\n")
    return found


def _place(train: TrainOptions, seed: int, work: Path) -> Path:
    """Rows that train alike share their dense networks."""
    values = [train.dataset, train.model, f"{train.epochs:g}"]
    values += [f"{key}={value}" for key, value in sorted(train.model_options.items())]
    return work / "dense" / "-".join([*values, f"seed{seed}"])


def _train(train: TrainOptions, seed: int, work: Path, console: Console | None) -> Path:
    place = _place(train, seed, work)
    fit(replace(train, seed=seed), place, resume=True, console=console)
    return place


def _sparsifies(options: PruneOptions) -> bool:
    return options.method in ("synaptic", "slimming")


def _prune(dense: Path, options: PruneOptions, place: Path, console: Console | None) -> PruneResult:
    """Rows that sparsify alike share the sparsified network: it does not depend on the density."""
    penalty = "default" if options.penalty is None else f"{options.penalty:g}"
    values = [dense.name, options.method, penalty, f"{options.sparsify_epochs:g}"]
    if options.group != 1:
        values.append(f"group-{options.group}".replace(" ", ""))
    shared = dense.parent.parent / "sparsify" / "-".join(values)
    if _sparsifies(options) and shared.exists() and not (place / "sparsify").exists():
        shutil.copytree(shared, place / "sparsify")
    result = prune_run(dense, options, place, resume=True, console=console)
    if _sparsifies(options) and not shared.exists():
        shutil.copytree(place / "sparsify", shared)
    return result


def _dense_model(train: TrainOptions, seed: int, work: Path) -> nn.Module:
    return load_model(load_checkpoint(_place(train, seed, work)))[0]


def _kept(result: PruneResult, test: Dataset) -> dict[str, Any]:
    """Sizes of the pruned network, and of what ``compact`` makes of it."""
    smaller = compact(result.model, test.images[:2])
    return {
        "connections": list(result.connections),
        "macs": list(result.macs),
        "parameters": [
            sum(p.numel() for p in smaller.parameters()),
            sum(p.numel() for p in result.model.parameters()),
        ],
    }


def _from_scratch(
    row: Row, chosen: int, place: Path, seed: int, test: Dataset, console: Console | None
) -> float:
    """Test accuracy of the pruned structure, trained from new start weights for as long as
    everything before took."""
    options = row.candidates[chosen]
    epochs = row.train.epochs + options.finetune_epochs
    epochs += options.sparsify_epochs if _sparsifies(options) else 0.0
    scratch = PruneOptions(
        method="scratch", seed=seed, finetune_epochs=epochs,
        finetune_learning_rate=row.train.learning_rate, recalibrate=options.recalibrate,
    )  # fmt: skip
    source, target = (place / f"{word}{chosen}-seed{seed}" for word in ("candidate", "scratch"))
    result = prune_run(source, scratch, target, resume=True, console=console)
    return accuracy(result.model, test)


def _fit(train: TrainOptions, models: list[nn.Module]) -> dict[str, Any]:
    """Accuracy on the images that were trained with, and on as many others of the training images,
    which nothing has looked at."""
    images = load(train.dataset, "train", path=train.data_path)
    assert train.limit is not None  # as Row wants it
    both = images.first(2 * train.limit)
    seen = both.first(train.limit)
    found: dict[str, list[float]] = {"trained with": [], "others": []}
    for model in models:
        right, of_both = accuracy(model, seen) * len(seen), accuracy(model, both) * len(both)
        found["trained with"].append(right / len(seen))
        found["others"].append((of_both - right) / (len(both) - len(seen)))
    return {name: _summary(values, "accuracy") for name, values in found.items()}


def _summary(values: list[float], name: str = "test") -> dict[str, Any]:
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {name: values, "mean": statistics.fmean(values), "deviation": spread}


def as_line(found: dict[str, Any]) -> str:
    """A row of the table."""
    kept = found["kept"][0]
    share = [kept[key][0] / kept[key][1] for key in ("connections", "macs")]
    scratch = found.get("from_scratch")
    words = [found["row"], f"{found['dense']['mean']:.2%}", f"{found['pruned']['mean']:.2%}"]
    words += [f"{share[0]:.1%}", f"{share[1]:.1%}"]
    words.append(f"{scratch['mean']:.2%}" if scratch else "-")
    return "| " + " | ".join(words) + " |"
