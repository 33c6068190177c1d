"""``load(name, split)``: images and labels."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from kernelprune.data.augmentation import Augmentation
from kernelprune.data.cifar import CIFAR10, CIFAR10_CLASSES, CIFAR100, read_cifar
from kernelprune.data.fashion_mnist import read_fashion_mnist
from kernelprune.data.image_folder import ImageFiles, find_images
from kernelprune.data.places import search_path
from kernelprune.errors import Error

SPLITS = ("train", "validation", "test")

# Data sets are split by one fixed permutation, so that no run ever validates on an image
# that another run trained on, whatever its own seed is.
_SPLIT_SEED = 20181102


@dataclass(frozen=True)
class Dataset:
    """A split of a data set.

    Attributes:
        name: Such as ``"fashion-mnist"``.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        images: float32 ``[N, C, H, W]``, zero mean and unit variance over the training images; in
            memory, or files that are read when indexed.
        labels: int64 ``[N]``, 0 <= label < number of classes.
        classes: Names of the classes.
        augmentation: What may be done to a training image without changing its class.
    """

    name: str
    split: str
    images: torch.Tensor | ImageFiles
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
        images = self.images
        images = images.first(count) if isinstance(images, ImageFiles) else images[:count]
        return replace(self, images=images, labels=self.labels[:count])


# Training images uint8 [N, C, H, W] and labels [N], test images and labels; images 0..255.
_Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Source:
    read: Callable[[str | os.PathLike[str] | None, bool], _Arrays]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    validation: int
    classes: tuple[str, ...]
    augmentation: Augmentation


def _read_digits(path: str | os.PathLike[str] | None, download: bool) -> _Arrays:
    """scikit-learn's 1,797 digits of 8x8 pixels; a fixed fifth of them is the test split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise Error(
            "the digits data set comes with scikit-learn: pip install 'kernelprune[digits]'"
        ) from error
    digits = load_digits()
    images = np.round(digits.images * (255.0 / 16.0)).astype(np.uint8)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(images))
    test, train = order[:360], order[360:]
    images = images[:, None]
    return images[train], digits.target[train], images[test], digits.target[test]


def _read_fashion_mnist(path: str | os.PathLike[str] | None, download: bool) -> _Arrays:
    images, labels, test_images, test_labels = read_fashion_mnist(path, download)
    return images[:, None], labels, test_images[:, None], test_labels


_SOURCES = {
    "fashion-mnist": _Source(
        _read_fashion_mnist,
        mean=(0.2860,),
        std=(0.3530,),
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
        mean=(0.3053,),
        std=(0.3760,),
        validation=180,
        classes=tuple("0123456789"),
        augmentation=Augmentation(shift=1, flip=False),
    ),
    "cifar10": _Source(
        partial(read_cifar, CIFAR10, 10),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        validation=5000,
        classes=CIFAR10_CLASSES,
        augmentation=Augmentation(shift=4, flip=True),
    ),
    "cifar100": _Source(
        partial(read_cifar, CIFAR100, 100),
        mean=(0.5071, 0.4866, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        validation=5000,
        classes=tuple(map(str, range(100))),
        augmentation=Augmentation(shift=4, flip=True),
    ),
}
_IMAGENET = "imagenet"
_VALIDATION_SHARE = 0.02  # of ImageNet's training images


def names() -> list[str]:
    """Names that :func:`load` knows."""
    return [*_SOURCES, _IMAGENET]


def load(
    name: str,
    split: str = "train",
    *,
    path: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> Dataset:
    """One split of a data set.

    | name | images: training, validation, test | |
    |---|---|---|
    | ``"fashion-mnist"`` | 55,000, 5,000, 10,000 of 1x28x28 | Xiao et al., arXiv 1708.07747 |
    | ``"digits"`` | 1,257, 180, 360 of 1x8x8 | scikit-learn |
    | ``"cifar10"``, ``"cifar100"`` | 45,000, 5,000, 10,000 of 3x32x32 | Krizhevsky, 2009 |
    | ``"imagenet"`` | files, cut to 3x224x224 | folders ``train/CLASS`` and ``val/CLASS`` |

    The validation images are a fixed random part of the training images; the test images of
    "imagenet", or of anything else in its layout, are those of ``val``.

    Args:
        name: One of :func:`names`.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        path: Folder with the files. By default ``$KERNELPRUNE_DATA``, the folder of the Debian
            package (Fashion-MNIST) and ``~/.cache/kernelprune`` are searched.
        download: Fetch missing files into ``~/.cache/kernelprune`` (not for "imagenet").

    Raises:
        Error: Unknown name or split; files missing, damaged or not those of the data set.
    """
    if name not in names():
        raise Error(f"unknown data set {name!r}; there are: {', '.join(names())}")
    if split not in SPLITS:
        raise Error(f"unknown split {split!r}; there are: {', '.join(SPLITS)}")
    if name == _IMAGENET:
        return _load_imagenet(split, path)
    source = _SOURCES[name]
    train_images, train_labels, test_images, test_labels = source.read(path, download)
    if split == "test":
        images, labels = test_images, test_labels
    else:
        chosen = _part(split, len(train_labels), source.validation)
        images, labels = train_images[chosen], train_labels[chosen]
    scaled = torch.from_numpy(images.astype(np.float32))
    mean, std = (torch.tensor(each)[:, None, None] for each in (source.mean, source.std))
    scaled.mul_(1.0 / (255.0 * std)).sub_(mean / std)
    return Dataset(
        name,
        split,
        scaled,
        torch.from_numpy(labels.astype(np.int64)),
        source.classes,
        source.augmentation,
    )


def _part(split: str, count: int, validation: int) -> np.ndarray:
    """Which of ``count`` training images belong to a split, in order."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(count)
    return np.sort(order[validation:] if split == "train" else order[:validation])


def _load_imagenet(split: str, path: str | os.PathLike[str] | None) -> Dataset:
    found = [folder for folder in search_path(_IMAGENET, path) if (folder / "train").is_dir()]
    if not found:
        places = ", ".join(map(str, search_path(_IMAGENET, path)))
        raise Error(
            f"ImageNet not found in {places}: give the folder that holds train/CLASS/*.JPEG and "
            "val/CLASS/*.JPEG as --data-path, or set KERNELPRUNE_DATA to it"
        )
    folder = Path(found[0])
    files, labels, classes = find_images(folder / "train")
    if split == "test":
        files, labels, there = find_images(folder / "val")
        if there != classes:
            raise Error(f"{folder}: train and val do not have the same folders of classes")
    else:
        chosen = _part(split, len(files), max(round(_VALIDATION_SHARE * len(files)), 1))
        files, labels = [files[i] for i in chosen], [labels[i] for i in chosen]
    images = ImageFiles(tuple(files))
    return Dataset(_IMAGENET, split, images, torch.tensor(labels), classes, Augmentation(crop=True))
