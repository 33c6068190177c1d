"""Data sets that fit in memory, and batches that depend on (seed, epoch, step) alone."""

from __future__ import annotations

from kernelprune.data.batches import Augmentation, augment, batches, steps_per_epoch
from kernelprune.data.dataset import Dataset, load, names

__all__ = ["Augmentation", "Dataset", "augment", "batches", "load", "names", "steps_per_epoch"]
