"""Training and pruning for a task of one's own: a loss of outputs and targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn import functional

from kernelprune.data import Dataset
from kernelprune.errors import Error
from kernelprune.train import (
    PruneOptions,
    Trainer,
    TrainOptions,
    latest_checkpoint,
    load_checkpoint,
    prune_model,
)

OPTIONS = TrainOptions(
    epochs=12.0, batch_size=16, learning_rate=0.1, weight_decay=0.0, threads=1, device="cpu",
    precision="float32",
)  # fmt: skip


class Smoother(nn.Module):
    """Learns to blur an image: ``[N, 1, 8, 8] -> {"map": [N, 1, 8, 8]}``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = torch.relu(self.norm(self.first(x)))
        return {"map": self.last(torch.relu(self.middle(x)))}


def dataset(split: str) -> Dataset:
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(len(split)))
    return Dataset("blur", split, images, functional.avg_pool2d(images, 3, 1, 1), ())


def distance(outputs: dict[str, torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(outputs["map"], targets)


def test_training_lowers_a_loss_of_ones_own(tmp_path: Path) -> None:
    """If this fails, only classifiers can be trained, or what is reported is no loss."""
    with (tmp_path / "log").open("w") as stream:
        trainer = Trainer(
            Smoother(), dataset("train"), OPTIONS, validation=dataset("validation"), loss=distance,
            folder=tmp_path / "run", console=Console(file=stream, width=200),
        )  # fmt: skip
        result = trainer.run()
    with torch.no_grad():
        images = dataset("validation")
        last = float(distance(result.model(images.images), images.labels))
    assert result.validation == pytest.approx(last)
    assert last < 0.7 * result.history[0]["validation"]
    assert all(entry["accuracy"] is None for entry in result.history)
    lines = (tmp_path / "log").read_text()
    assert f"validation {last:.4g}" in lines and "accuracy" not in lines
    place = latest_checkpoint(tmp_path / "run")
    assert place is not None and load_checkpoint(place).state["history"] == result.history


METHODS: list[dict[str, Any]] = [
    {"method": "synaptic", "distill": 0.5},
    {"method": "taylor"},
    {"method": "dcp", "losses": 0},
    {"method": "dkp", "discrimination": 0.0},
]


@pytest.mark.parametrize("options", METHODS, ids=lambda options: options["method"])
def test_pruning_with_a_loss_of_ones_own(options: dict[str, Any]) -> None:
    """If this fails, a method asks for labels of classes somewhere between its options and the
    fine-tuned network."""
    chosen = PruneOptions(
        density=0.5, sparsify_epochs=1.0, finetune_epochs=1.0, finetune_learning_rate=0.01,
        device="cpu", recalibrate=1, **options,
    )  # fmt: skip
    model, plan = prune_model(Smoother(), chosen, OPTIONS, dataset("train"), loss=distance)
    assert (plan.prunable_kept, plan.prunable_connections) == (32, 64)
    weight = model.get_parameter("middle.weight")
    assert int(weight.flatten(2).ne(0).any(2).sum()) == 32


def test_a_loss_that_does_not_fit_says_so() -> None:
    """If this fails, whoever forgets the loss reads a traceback of torch's cross entropy."""
    with pytest.raises(Error, match=r"outputs a dict of map: \[16, 1, 8, 8\] float32 .*say loss="):
        Trainer(Smoother(), dataset("train"), replace(OPTIONS, epochs=1.0)).run()
