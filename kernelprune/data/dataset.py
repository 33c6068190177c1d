"""``load(name, split)``: a data set as two tensors."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from kernelprune.data.batches import Augmentation
from kernelprune.data.fashion_mnist import read_fashion_mnist
from kernelprune.errors import Error

SPLITS = ("train", "validation", "test")

# Both data sets are split by one fixed permutation, so that no run ever validates on an image
# that another run trained on, whatever its own seed is.
_SPLIT_SEED = 20181102


@dataclass(frozen=True)
class Dataset:
    """A split of a data set, in memory.

    Attributes:
        name: Such as ``"fashion-mnist"``.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        images: float32 ``[N, C, H, W]``, zero mean and unit variance over the training images.
        labels: int64 ``[N]``, 0 <= label < number of classes.
        classes: Names of the classes.
        augmentation: What may be done to a training image without changing its class.
    """

    name: str
    split: str
    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, ``(C, H, W)``."""
        channels, height, width = self.images.shape[1:]
        return int(channels), int(height), int(width)

    def first(self, count: int) -> Dataset:
        """The first ``count`` images; all of them if there are fewer."""
        return Dataset(
            self.name,
            self.split,
            self.images[:count],
            self.labels[:count],
            self.classes,
            self.augmentation,
        )


# Training images uint8 [N, H, W] and labels [N], test images and labels; images 0..255.
_Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Source:
    read: Callable[[str | os.PathLike[str] | None, bool], _Arrays]
    mean: float
    std: float
    validation: int
    classes: tuple[str, ...]
    augmentation: Augmentation


def _read_digits(path: str | os.PathLike[str] | None, download: bool) -> _Arrays:
    """scikit-learn's 1,797 digits of 8x8 pixels; a fixed fifth of them is the test split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise Error(
            "the digits data set comes with scikit-learn: pip install scikit-learn"
        ) from error
    digits = load_digits()
    images = np.round(digits.images * (255.0 / 16.0)).astype(np.uint8)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(images))
    test, train = order[:360], order[360:]
    return images[train], digits.target[train], images[test], digits.target[test]


_SOURCES = {
    "fashion-mnist": _Source(
        read_fashion_mnist,
        mean=0.2860,
        std=0.3530,
        validation=5000,
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        augmentation=Augmentation(shift=2, flip=True),
    ),
    "digits": _Source(
        _read_digits,
        mean=0.3053,
        std=0.3760,
        validation=180,
        classes=tuple("0123456789"),
        augmentation=Augmentation(shift=1, flip=False),
    ),
}


def names() -> list[str]:
    """Names that :func:`load` knows."""
    return list(_SOURCES)


def load(
    name: str,
    split: str = "train",
    *,
    path: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> Dataset:
    """Loads one split of a data set into memory.

    ``"fashion-mnist"`` (Xiao et al., arXiv 1708.07747): 55,000 training, 5,000 validation and
    10,000 test images of 1x28x28. ``"digits"`` (scikit-learn): 1,257, 180 and 360 of 1x8x8. The
    validation images are a fixed random part of the training images.

    Args:
        name: ``"fashion-mnist"`` or ``"digits"``.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        path: Folder with the files. By default ``$KERNELPRUNE_DATA``, then the folder of the Debian
            package, then ``~/.cache/kernelprune`` are searched.
        download: Fetch missing files into ``~/.cache/kernelprune``.

    Raises:
        Error: Unknown name or split; files missing, damaged or not those of the data set.
    """
    source = _SOURCES.get(name)
    if source is None:
        raise Error(f"unknown data set {name!r}; there are: {', '.join(names())}")
    if split not in SPLITS:
        raise Error(f"unknown split {split!r}; there are: {', '.join(SPLITS)}")
    train_images, train_labels, test_images, test_labels = source.read(path, download)
    if split == "test":
        images, labels = test_images, test_labels
    else:
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(train_labels))
        validation, train = order[: source.validation], order[source.validation :]
        chosen = np.sort(train if split == "train" else validation)
        images, labels = train_images[chosen], train_labels[chosen]
    scaled = torch.from_numpy(images.astype(np.float32))
    scaled.mul_(1.0 / (255.0 * source.std)).sub_(source.mean / source.std)
    return Dataset(
        name,
        split,
        scaled.unsqueeze(1),
        torch.from_numpy(labels.astype(np.int64)),
        source.classes,
        source.augmentation,
    )
