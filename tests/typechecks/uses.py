"""Right and wrong uses of the public names, for mypy; `make lint` reads this, and nothing runs it.

A wrong use that mypy lets pass is an error too: its comment is then unused.
"""

import numpy as np
import torch
from torch import nn

import kernelprune as kp
from kernelprune.prune import Plan, count
from kernelprune.runtime import tune


def right(model: nn.Module, x: torch.Tensor, images: np.ndarray) -> None:
    plan: Plan = kp.prune_connections(model, density=0.1, criterion="l1", x=x)
    plan = kp.prune_channels(model, x, ratio=0.5)
    small: nn.Module = kp.compact(model, x)
    kp.export(small, x, "model.safetensors", dynamic=("height", "width"))
    print(kp.check(model, x), count(model, x).macs, plan.density)
    engine: kp.Engine = kp.Engine("model.safetensors", threads=2, isa="avx2")
    engine.run(images)
    tuned = tune("model.safetensors", threads=2)
    tuned.plan.save("model.plan")
    try:
        kp.benchmark("model.safetensors")
    except kp.ShapeError as error:
        print(error)


def wrong(model: nn.Module, x: torch.Tensor) -> None:
    kp.Engine("model.safetensors", thread=2)  # type: ignore[call-arg]
    kp.Engine("model.safetensors", threads="two")  # type: ignore[arg-type]
    kp.export(model, x, "model.safetensors", dynamics=("height",))  # type: ignore[arg-type]
    kp.SynapticStrength(model, penalti=1e-4)  # type: ignore[call-arg]
    kp.prune_connections(model, densities=0.1)  # type: ignore[call-arg]
    kp.quantize(model, x, method=3)  # type: ignore[arg-type]
    kp.prune_conections(model)  # type: ignore[attr-defined]
    kp.Engine("model.safetensors").runs(x)  # type: ignore[attr-defined]
