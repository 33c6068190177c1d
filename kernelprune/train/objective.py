"""What a training lowers: the cross entropy of classes, or any loss of outputs and targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from kernelprune.data import Dataset
from kernelprune.errors import Error
from kernelprune.prune.batches import Loss, device_of, loss_of
from kernelprune.prune.targets import map_tensors, tensors_of
from kernelprune.train.evaluate import accuracy


@dataclass(frozen=True)
class Objective:
    """``loss(outputs, targets)``, one number; None is the cross entropy of scores
    ``[N, classes]`` and labels, with ``label_smoothing``. ``distill``: the share of the distance to
    the outputs of a ``teacher`` that runs beside the model."""

    loss: Loss | None = None
    label_smoothing: float = 0.0
    distill: float = 0.0

    @property
    def measure(self) -> str:
        """What is measured on validation images."""
        return "accuracy" if self.loss is None else "loss"

    def of(self, outputs: Any, targets: Any, taught: Any = None) -> torch.Tensor:
        """The loss of a batch in float32. ``taught``: the teacher's outputs, None without one.
        Raises Error where the loss fails or is no number."""
        outputs = _as_float(outputs)
        value = loss_of(self._cross_entropy if self.loss is None else self.loss, outputs, targets)
        if taught is None:
            return value
        distance = _softened if self.loss is None else _mean_square
        return (1 - self.distill) * value + self.distill * distance(outputs, _as_float(taught))

    def right(self, outputs: Any, targets: Any) -> torch.Tensor:
        """The share of a batch that is classified right; NaN for another task."""
        if self.loss is not None:
            return torch.full((), float("nan"))
        return (outputs.detach().argmax(dim=1) == targets).float().mean()

    def check(self, model: nn.Module, dataset: Dataset, batch_size: int = 256) -> float:
        """The accuracy of ``model`` on ``dataset``, or its mean loss."""
        if self.loss is None:
            return accuracy(model, dataset, batch_size)
        training, total = model.training, 0.0
        model.eval()
        try:
            with torch.no_grad():
                for start in range(0, len(dataset), batch_size):
                    part = slice(start, start + batch_size)
                    images = dataset.images[part].to(device_of(model))
                    targets = dataset.labels[part].to(images.device)
                    loss = loss_of(self.loss, _as_float(model(images)), targets)
                    total += float(loss) * len(images)
        finally:
            model.train(training)
        return total / len(dataset)

    def _cross_entropy(self, scores: Any, labels: Any) -> torch.Tensor:
        return functional.cross_entropy(scores, labels, label_smoothing=self.label_smoothing)


def _as_float(outputs: Any) -> Any:
    return map_tensors(lambda x: x.float() if x.is_floating_point() else x, outputs)


def _softened(scores: torch.Tensor, taught: torch.Tensor, softness: float = 2.0) -> torch.Tensor:
    """Cross entropy to the teacher's softened distribution, scaled to keep the gradient's size."""
    wanted = functional.softmax(taught / softness, dim=1)
    return functional.cross_entropy(scores / softness, wanted) * softness**2


def _mean_square(outputs: Any, taught: Any) -> torch.Tensor:
    """Mean squared distance over all outputs that are maps or vectors of numbers."""
    pairs = zip(tensors_of(outputs), tensors_of(taught), strict=True)
    parts = [
        functional.mse_loss(ours, theirs) for ours, theirs in pairs if ours.is_floating_point()
    ]
    if not parts:
        raise Error("distill: the model's outputs hold no floating-point tensor")
    return torch.stack(parts).mean()
