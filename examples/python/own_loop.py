"""Your own model in your own loop: python own_loop.py [FILE]. Takes seconds, and no data.

Lines marked "pruning" are what pruning adds; all others are plain PyTorch.
"""

import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import kernelprune as kp


class OwnModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1, bias=False) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(32) for _ in range(4))
        self.head = nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norms[0](self.stem(x)).relu()
        for layer, norm in zip(self.layers, self.norms[1:], strict=True):
            x = x + norm(layer(x)).relu()
        return self.head(x.mean((2, 3)))


def stripes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy stripes in eight directions: images [count, 1, 16, 16] and labels [count]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(8, (count,), generator=generator)
    angles = labels.view(-1, 1, 1) * torch.pi / 8
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    waves = torch.sin(x * angles.cos() + y * angles.sin() + torch.randn(count, 1, 1))
    return (waves + torch.randn(count, 16, 16, generator=generator)).unsqueeze(1), labels


def train(model, groups, images, labels, penalty=lambda: 0.0) -> None:
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    model.train()
    for _ in range(3):
        for batch in torch.randperm(len(images)).split(64):
            loss = cross_entropy(model(images[batch]), labels[batch]) + penalty()  # pruning
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()


def accuracy(network, images, labels) -> float:
    with torch.no_grad():
        return float((network(images).argmax(1) == labels).float().mean())


def main(path: str = "own.safetensors") -> None:
    torch.manual_seed(0)
    images, labels = stripes(3000, seed=1)
    test = stripes(1000, seed=2)
    model = OwnModel()

    pruner = kp.SynapticStrength(model, images[:1])  # pruning: before the optimiser is made
    groups = pruner.parameter_groups(weight_decay=1e-4)  # pruning: strengths do not decay
    train(model, groups, images, labels, pruner.penalty)
    print(f"trained:       {accuracy(model, *test):.3f}")

    print(pruner.prune(density=0.1))  # pruning: a tenth of the connections stays
    print(f"pruned:        {accuracy(model, *test):.3f}")
    train(model, groups, images, labels)  # pruning: fine-tuning, without the penalty
    print(f"fine-tuned:    {accuracy(model, *test):.3f}")

    model = pruner.finalize()  # pruning: a plain module with zeroed kernels
    kp.export(model, images[:1], path)
    engine = kp.Engine(path, threads=1)
    print(f"in the engine: {accuracy(engine.run, *test):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
