"""Data sets in memory or in files, and batches that depend on (seed, epoch, step) alone."""

from __future__ import annotations

from kernelprune.data.augmentation import Augmentation, augment
from kernelprune.data.batches import batches, steps_per_epoch
from kernelprune.data.dataset import Dataset, load, names
from kernelprune.data.image_folder import ImageFiles

__all__ = [
    "Augmentation",
    "Dataset",
    "ImageFiles",
    "augment",
    "batches",
    "load",
    "names",
    "steps_per_epoch",
]
