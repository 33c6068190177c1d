"""Batches as pure functions of (seed, epoch, step).

No state, no worker processes: a training that is resumed at step 123 sees exactly the images that
an uninterrupted one would see.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from kernelprune.data.augmentation import Augmentation, augment
from kernelprune.data.dataset import Dataset
from kernelprune.data.image_folder import ImageFiles


def _generator(*key: int) -> torch.Generator:
    """A generator whose stream depends on all of ``key``, and mixes neighbouring keys well."""
    state = np.random.SeedSequence([part & 0xFFFFFFFF for part in key]).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Full batches in ``count`` images, at least one: the rest waits for another permutation."""
    return max(count // batch_size, 1)


def batches(
    dataset: Dataset,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start_step: int = 0,
    augmentation: Augmentation | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch of shuffled training batches.

    Args:
        dataset: Its images and labels.
        batch_size: Images per batch.
        seed: Of the training.
        epoch: Counted from 0; every epoch has its own order.
        start_step: Leaves out the batches before this one (when resuming).
        augmentation: None leaves the images as they are.

    Yields:
        Images float32 ``[batch_size, C, H, W]`` and labels int64 ``[batch_size]``.
    """
    order = torch.randperm(len(dataset), generator=_generator(seed, epoch))
    for step in range(start_step, steps_per_epoch(len(dataset), batch_size)):
        index = order[step * batch_size : (step + 1) * batch_size]
        generator = _generator(seed, epoch, step + 1)
        if augmentation is not None and isinstance(dataset.images, ImageFiles):
            images = dataset.images.read(index, generator if augmentation.crop else None)
        else:
            images = dataset.images[index]
            if augmentation is not None:
                images = augment(images, augmentation, generator)
        yield images, dataset.labels[index]
