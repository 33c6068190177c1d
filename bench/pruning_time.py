"""``python -m bench.pruning_time``: what the strengths cost while training, and time limits.

Two questions about Synaptic Strength. How much longer does a training step take (forward, backward
and update) than of the plain network? And when ``latency_ms`` asks for a time, what does the engine
then take for the pruned file?
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from bench.results import RESULTS, save
from kernelprune import SynapticStrength, export, models
from kernelprune.benchmarking import Candidate, describe_machine, measure
from kernelprune.runtime import Engine

# Name, options, side of the images, images per step. The last is a case that no one trains: next to
# its weights, maps of 32x32 behind ImageNet's stem are nothing, and strengths cost per weight.
TRAINED: tuple[tuple[str, dict[str, Any], int, int], ...] = (
    ("vgg_small", {}, 28, 128),
    ("vgg16", {"width": 0.5}, 32, 64),
    ("resnet20", {}, 32, 64),
    ("resnet18", {"width": 0.5, "stem": "cifar"}, 32, 32),
    ("resnet50", {"width": 0.25, "stem": "cifar"}, 32, 32),
    ("densenet40", {"width": 0.5}, 32, 32),
    ("resnet50", {"width": 0.25, "stem": "imagenet"}, 32, 64),
)
# Name, side, images, share of the dense file's time that is asked for.
LIMITS = (
    ("vgg16", 32, 1, 0.5),
    ("vgg16", 32, 64, 0.2),
    ("resnet18", 32, 1, 0.3),
    ("resnet18", 32, 16, 0.25),
    ("resnet56", 32, 1, 0.4),
    ("resnet20", 32, 16, 0.5),
)


def _network(name: str, options: dict[str, Any]) -> nn.Module:
    return models.create(name, num_classes=10, seed=0, **options)


def _step(
    model: nn.Module, parameters: Any, penalty: Callable[[], torch.Tensor] | None, side: int, n: int
) -> Callable[[], None]:
    """One training step on images that stay the same."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, side, side, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (n,), generator=generator)
    optimiser = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, nesterov=True)

    def step() -> None:
        loss = functional.cross_entropy(model(images), labels)
        if penalty is not None:
            loss = loss + penalty()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def step_time(
    name: str, network: dict[str, Any], side: int, images: int, seconds: float
) -> dict[str, Any]:
    """One row: the step with strengths over the plain one, in float32."""
    plain, pruned = (_network(name, network).train() for _ in range(2))
    for model in (plain, pruned):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    strength = SynapticStrength(pruned, torch.zeros(1, 3, side, side), penalty=1e-5)
    steps = {
        "plain": _step(plain, plain.parameters(), None, side, images),
        "strength": _step(pruned, strength.parameter_groups(), strength.penalty, side, images),
    }
    found = measure([Candidate(kind, call) for kind, call in steps.items()], seconds=seconds)
    return {
        "kind": "step", "network": name, "options": network, "side": side, "batch": images,
        "timings": {kind: dataclasses.asdict(timing) for kind, timing in found.items()},
        "ratio": found["strength"].median / found["plain"].median,
    }  # fmt: skip


def time_limit(name: str, side: int, batch: int, share: float, seconds: float) -> dict[str, Any]:
    """One row: the time of the network pruned for ``share`` of the dense file's time."""
    model = _network(name, {})
    x = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dense.safetensors"
        export(model.eval(), x[:1], path)
        dense = Engine(path)
        took = measure([Candidate("dense", lambda: dense.run(x))], seconds=seconds)["dense"].median
        limit = share * took
        strength = SynapticStrength(model, x[:1])
        plan = strength.prune(latency_ms=limit, batch=batch, threads=1)
        pruned = Path(folder) / "pruned.safetensors"
        export(strength.finalize().eval(), x[:1], pruned)
        engine = Engine(pruned)
        found = measure([Candidate("pruned", lambda: engine.run(x))], seconds=seconds)["pruned"]
    return {
        "kind": "limit", "network": name, "side": side, "batch": batch, "dense_milliseconds": took,
        "limit_milliseconds": limit, "planned_milliseconds": plan.milliseconds,
        "density": plan.prunable_density, "timing": dataclasses.asdict(found),
        "ratio": found.median / limit,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pruning_time", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="per candidate")
    parser.add_argument("--only", choices=("steps", "limits"), help="one of the two questions")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the json files")
    options = parser.parse_args()
    machine = describe_machine()
    torch.set_num_threads(1)
    for name, measured in (("steps", measure_steps), ("limits", measure_limits)):
        if options.only in (None, name):
            result = {"machine": machine, "threads": 1, "rows": measured(options.seconds)}
            save(result, options.out / f"pruning-{name}.json")


def measure_steps(seconds: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for case in TRAINED:
        rows.append(row := step_time(*case, seconds))
        plain, strength = (row["timings"][kind]["median"] for kind in ("plain", "strength"))
        print(
            f"{row['network']:<12} {row['options']}, {row['batch']} images of {row['side']}: "
            f"a step {plain:.1f} ms, with strengths {strength:.1f} ms: {row['ratio']:.3f}",
            flush=True,
        )
    return rows


def measure_limits(seconds: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for limit in LIMITS:
        rows.append(row := time_limit(*limit, seconds))
        print(
            f"{row['network']:<12} batch {row['batch']}: {row['limit_milliseconds']:.2f} ms asked, "
            f"{row['timing']['median']:.2f} ms taken at density {row['density']:.3f} (dense "
            f"{row['dense_milliseconds']:.2f} ms): {row['ratio']:.3f}",
            flush=True,
        )
    return rows


if __name__ == "__main__":
    main()
