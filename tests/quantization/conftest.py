"""A network that is really trained: ranges of random weights say little of accuracy."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


class Digits(nn.Module):
    """conv - residual block - pool - conv - pool - linear, with batch norms, for 8x8 digits."""

    def __init__(self, channels: int = 16):
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.norm0 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(2 * channels)
        self.head = nn.Linear(2 * channels, 10)

    def forward(self, x):
        x = functional.relu(self.norm0(self.stem(x)))
        y = functional.relu(self.norm1(self.conv1(x)))
        x = functional.relu(self.norm2(self.conv2(y)) + x)
        x = functional.max_pool2d(x, 2)
        x = functional.relu(self.norm3(self.conv3(x)))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


@dataclass
class Task:
    model: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor

    def accuracy(self, model: nn.Module) -> float:
        with torch.no_grad():
            found = model(self.test_images).argmax(1)
        return float((found == self.test_labels).float().mean())


def fit(model: nn.Module, task: Task, epochs: int, rate: float) -> nn.Module:
    """Trains in place; returns the model in eval mode."""
    optimiser = torch.optim.SGD(model.parameters(), rate, momentum=0.9, nesterov=True)
    batches = len(task.images) // 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * batches)
    model.train()
    for _ in range(epochs):
        for part in torch.randperm(len(task.images))[: 64 * batches].split(64):
            optimiser.zero_grad()
            functional.cross_entropy(model(task.images[part]), task.labels[part]).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


@pytest.fixture(scope="session")
def trained() -> Task:
    datasets = pytest.importorskip("sklearn.datasets")
    data = datasets.load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    labels = torch.from_numpy(data.target)
    torch.manual_seed(0)
    task = Task(Digits(), images[:1200], labels[:1200], images[1200:], labels[1200:])
    fit(task.model, task, 8, 0.2)
    return task


@pytest.fixture
def task(trained: Task) -> Task:
    """With a model of its own, that a test may change."""
    return Task(
        copy.deepcopy(trained.model),
        trained.images,
        trained.labels,
        trained.test_images,
        trained.test_labels,
    )
