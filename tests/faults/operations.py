"""What is killed: each operation writes one thing, and knows what a whole one looks like."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import nn

import kernelprune as kp
from kernelprune.format import read
from kernelprune.train import (
    PruneOptions,
    TrainOptions,
    fit,
    load_checkpoint,
    prune_run,
)

TRAIN = TrainOptions(
    model="vgg_small",
    model_options={"width": 0.04},
    dataset="digits",
    epochs=1,
    batch_size=32,
    limit=96,
    threads=1,
    device="cpu",
    checkpoint_steps=1,
)
PRUNE = PruneOptions(
    method="l1", density=0.5, finetune_epochs=1, finetune_learning_rate=0.01, recalibrate=1,
    device="cpu",
)  # fmt: skip


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 40, 3, padding=1), nn.ReLU(), nn.Conv2d(40, 40, 3), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1440, 10)).eval()


class Operation(ABC):
    """``prepare`` puts the good old thing in place; ``run`` writes the new one, or goes on with it;
    ``check_killed`` looks at what a killed run left, ``check_done`` at what a whole one did."""

    name = ""

    def __init__(self, folder: Path):
        self.folder = folder
        self.target = folder / "place"
        folder.mkdir(parents=True)
        self.set_up()
        self.prepare()

    @abstractmethod
    def set_up(self) -> None:
        """Once: the old thing, and what the right new one is."""

    def prepare(self) -> None:
        shutil.rmtree(self.target, ignore_errors=True)
        self.target.mkdir()

    @abstractmethod
    def run(self) -> None: ...

    @abstractmethod
    def check_killed(self) -> None: ...

    @abstractmethod
    def check_done(self) -> None: ...

    def check_only(self, *names: str) -> None:
        """Nothing else lies there: what a killed run left is gone after a whole one."""
        found = sorted(entry.name for entry in self.target.iterdir())
        assert found == sorted(names), found


class Export(Operation):
    name = "export"

    def set_up(self) -> None:
        self.example = torch.zeros(1, 3, 8, 8)
        self.new_model = network(1)
        self.old, self.new = self.folder / "old", self.folder / "new"
        kp.export(network(0), self.example, self.old)
        kp.export(self.new_model, self.example, self.new)
        self.wholes = [path.read_bytes() for path in (self.old, self.new)]

    def prepare(self) -> None:
        super().prepare()
        shutil.copy(self.old, self.target / "model")

    def run(self) -> None:
        kp.export(self.new_model, self.example, self.target / "model")

    def check_killed(self) -> None:
        read(self.target / "model")
        assert (self.target / "model").read_bytes() in self.wholes

    def check_done(self) -> None:
        assert (self.target / "model").read_bytes() == self.wholes[1]
        self.check_only("model")


class Train(Operation):
    name = "train"

    def set_up(self) -> None:
        self.right = fit(TRAIN, self.folder / "right").model.state_dict()

    def run(self) -> None:
        fit(TRAIN, self.target, resume=True)

    def check_killed(self) -> None:
        if any(self.target.glob("checkpoint-*/state.json")):
            load_checkpoint(self.target)

    def check_done(self) -> None:
        self.check_same(self.right)
        self.check_only(next(self.target.glob("checkpoint-*")).name)

    def check_same(self, right: dict[str, torch.Tensor]) -> None:
        found = load_checkpoint(self.target).model
        assert found.keys() == right.keys()
        assert all(torch.equal(found[name], right[name]) for name in right), "other weights"


class Prune(Train):
    name = "prune"

    def set_up(self) -> None:
        fit(TRAIN, self.folder / "dense")
        prune_run(self.folder / "dense", PRUNE, self.folder / "right")
        self.right = load_checkpoint(self.folder / "right").model

    def run(self) -> None:
        prune_run(self.folder / "dense", PRUNE, self.target, resume=True)

    def check_killed(self) -> None:
        super().check_killed()
        load_checkpoint(self.folder / "dense")

    def check_done(self) -> None:
        self.check_same(self.right)
        self.check_only("finetune", next(self.target.glob("checkpoint-*")).name)


class Tune(Operation):
    name = "tune"

    def set_up(self) -> None:
        self.model = self.folder / "model"
        kp.export(network(0), torch.zeros(1, 3, 8, 8), self.model)
        self.old = self.folder / "old"
        kp.runtime.tune(self.model, seconds=0.001).plan.save(self.old)

    def prepare(self) -> None:
        super().prepare()
        shutil.copy(self.old, self.target / "plan")

    def run(self) -> None:
        kp.runtime.tune(self.model, seconds=0.001).plan.save(self.target / "plan")

    def check_killed(self) -> None:
        kp.Engine(self.model, plan=self.target / "plan")

    def check_done(self) -> None:
        self.check_killed()
        self.check_only("plan")


OPERATIONS: tuple[type[Operation], ...] = (Export, Train, Prune, Tune)
