"""Predictions of torch models, of the engine, of anything that maps images to scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from kernelprune.data import Dataset, ImageFiles
from kernelprune.prune.batches import device_of


def predict(
    run: nn.Module | Callable[[Any], Any], images: torch.Tensor | ImageFiles, batch_size: int = 256
) -> np.ndarray:
    """The class with the highest score of every image.

    Args:
        run: A module, which is put in eval mode for the call, or a function from float32 tensors
            ``[batch, C, H, W]`` to scores ``[batch, classes]``, tensor or array.
        images: ``[N, C, H, W]``.
        batch_size: Images per call.

    Returns:
        int64 ``[N]``.
    """
    training = isinstance(run, nn.Module) and run.training
    if isinstance(run, nn.Module):
        run.eval()
    try:
        with torch.inference_mode():
            parts = [
                _scores(run, images[start : start + batch_size]).argmax(axis=1)
                for start in range(0, len(images), batch_size)
            ]
    finally:
        if isinstance(run, nn.Module):
            run.train(training)
    return np.concatenate(parts).astype(np.int64)


def _scores(run: nn.Module | Callable[[Any], Any], images: torch.Tensor) -> np.ndarray:
    found = run(images.to(device_of(run)) if isinstance(run, nn.Module) else images)
    return np.asarray(found.float().cpu() if isinstance(found, torch.Tensor) else found)


def accuracy(
    run: nn.Module | Callable[[Any], Any], dataset: Dataset, batch_size: int = 256
) -> float:
    """Share of the images of ``dataset`` that ``run`` (see :func:`predict`) classifies right."""
    predicted = predict(run, dataset.images, batch_size)
    return float(np.mean(predicted == dataset.labels.numpy()))
