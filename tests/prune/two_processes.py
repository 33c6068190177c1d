"""What ``test_distributed.py`` runs in one process with the whole batches, and in two processes
with a part each: Synaptic Strength, a greedy choice and Taylor scores."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import kernelprune as kp
from kernelprune.prune import recalibrate, synchronised_norms
from kernelprune.prune.distributed import (
    average_gradients,
    is_first,
    join_processes,
    own_part,
    world_size,
)
from kernelprune.prune.masks import save_masks
from kernelprune.train import PruneOptions, TrainOptions, fit, prune_run

X = torch.randn(8, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(8) % 5


class Net(nn.Module):
    """Chain with batch norms, whose statistics must be those of the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm_a = nn.BatchNorm2d(6)
        self.b = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.norm_b = nn.BatchNorm2d(8, momentum=None)
        self.c = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.norm_b(self.b(torch.relu(self.norm_a(self.a(x))))))
        return self.fc(torch.relu(self.c(x)).mean((2, 3)))


def net() -> nn.Module:
    torch.manual_seed(1)
    return Net().double()


def loader() -> list[tuple[torch.Tensor, torch.Tensor]]:
    halves = ((X[:4], LABELS[:4]), (X[4:], LABELS[4:]))
    return [(own_part(images), own_part(labels)) for images, labels in halves]


def states() -> dict[str, torch.Tensor]:
    """Of a network after some training, and of one whose batch norms were measured anew."""
    model = net().train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with synchronised_norms(model):
        for images, labels in loader() * 3:
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            average_gradients(model.parameters())
            optimiser.step()
    found = {f"trained.{name}": value for name, value in model.state_dict().items()}
    measured = recalibrate(net(), loader())
    return found | {f"measured.{name}": value for name, value in measured.state_dict().items()}


def masks() -> dict[str, torch.Tensor]:
    """By what each method keeps."""
    found = {}
    model = net()
    pruner = kp.SynapticStrength(model, X, penalty=1e-3)
    parameters = pruner.parameter_groups()
    optimiser = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    model.train()
    with synchronised_norms(model):
        for images, labels in loader() * 2:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels) + pruner.penalty()
            loss.backward()
            average_gradients(p for group in parameters for p in group["params"])
            optimiser.step()
    pruner.measure(loader())
    found["synaptic"] = pruner.prune(density=0.4).masks
    found["wrapped"] = wrapped()
    greedy = kp.DiscriminationAware(net(), X, loader(), losses=1, channels_per_step=2)
    found["channels"] = greedy.prune(ratio=0.5).masks
    found["taylor"] = kp.prune_connections(
        net(), density=0.4, criterion="taylor", loader=loader()
    ).masks
    return {f"{way}.{name}": mask for way, each in found.items() for name, mask in each.items()}


def wrapped() -> dict[str, torch.Tensor]:
    """What Synaptic Strength keeps in a loop of one's own with torch's DistributedDataParallel: it
    averages the gradients, and the penalty is not part of the module that it wraps."""
    model = net().train()
    pruner = kp.SynapticStrength(model, X, penalty=1e-2)
    trained = DistributedDataParallel(model) if world_size() > 1 else model
    optimiser = torch.optim.SGD(pruner.parameter_groups(), lr=0.1, momentum=0.9)
    with synchronised_norms(model):
        for images, labels in loader() * 4:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(trained(images), labels) + pruner.penalty()
            loss.backward()
            optimiser.step()
    pruner.measure(loader())
    return pruner.prune(density=0.4).masks


def main(folder: Path, rank: str) -> None:
    torch.set_num_threads(1)
    join_processes()
    save_masks(masks(), folder / f"masks{rank}.safetensors")
    torch.save(states(), folder / f"states{rank}.pt")
    train = TrainOptions(
        dataset="digits", model_options={"width": 0.125}, epochs=1, limit=128, precision="float32"
    )
    fit(train, folder / "dense")
    options = PruneOptions(density=0.3, sparsify_epochs=1, finetune_epochs=1)
    result = prune_run(folder / "dense", options, folder / "pruned")
    save_masks(result.plan.masks, folder / f"trained{rank}.safetensors")
    (folder / f"first{rank}").write_text(str(is_first()))


if __name__ == "__main__":
    import os

    main(Path(sys.argv[1]), os.environ["RANK"])
