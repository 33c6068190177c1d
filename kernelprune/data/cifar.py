"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), in the folders that their archives make.

Their files are pickles, which can run code when they are read; :mod:`~.cifar_pickle` reads them
without running anything.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kernelprune.data.cifar_pickle import as_bytes_array, read_dictionary
from kernelprune.data.places import cache_folder, search_path
from kernelprune.errors import Error
from kernelprune.files import check_writable, read_bytes, write_bytes


@dataclass(frozen=True)
class CifarForm:
    """Where one of the two keeps what; ``md5`` is of the archive, as its page states it."""

    title: str
    folder: str
    train: tuple[str, ...]
    test: str
    labels: bytes
    url: str
    md5: str


_SITE = "https://www.cs.toronto.edu/~kriz/"
CIFAR10 = CifarForm(
    "CIFAR-10",
    "cifar-10-batches-py",
    tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test_batch",
    b"labels",
    _SITE + "cifar-10-python.tar.gz",
    "c58f30108f718f92721af3b95e74349a",
)
CIFAR100 = CifarForm(
    "CIFAR-100",
    "cifar-100-python",
    ("train",),
    "test",
    b"fine_labels",
    _SITE + "cifar-100-python.tar.gz",
    "eb9058c3a382ffc7106e4002c42a8d85",
)

# The largest file, of CIFAR-100, has 155 MB.
_MOST_BYTES = 1 << 30

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def read_file(file: Path, labels: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``[N, 3, 32, 32]`` and labels int64 ``[N]`` of one file.

    Raises:
        Error: It cannot be read, holds something else, or asks for more than arrays.
    """
    try:
        entries = read_dictionary(read_bytes(file, _MOST_BYTES))
    except ValueError as error:
        raise Error(f"{file}: not a file of CIFAR ({error}); install or copy it again") from None
    pixels = as_bytes_array(entries.get(b"data"))
    numbers: Any = entries.get(labels)
    if pixels is None or pixels.shape[1] != 3 * 32 * 32 or len(pixels) == 0:
        raise Error(f"{file}: has no images of 3x32x32 bytes")
    whole = isinstance(numbers, list) and all(type(number) is int for number in numbers)
    if not whole or len(numbers) != len(pixels):
        raise Error(f"{file}: has no whole number '{labels.decode()}' for each of its images")
    if not all(0 <= number < classes for number in numbers):
        raise Error(f"{file}: labels must be from 0 to {classes - 1}")
    return pixels.reshape(-1, 3, 32, 32), np.array(numbers, np.int64)


def read_cifar(
    form: CifarForm, classes: int, path: str | os.PathLike[str] | None, download: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images ``[N, 3, 32, 32]``, labels ``[N]``, test images and labels.

    ``path``: the folder with the files, or the one around it (torchvision's ``root``).

    Raises:
        Error: A file is missing or damaged.
    """
    names = (*form.train, form.test)
    places = [
        place
        for folder in search_path(form.folder, path)
        for place in (folder, folder / form.folder)
    ]
    found = [place for place in places if all((place / name).is_file() for name in names)]
    if not found and download:
        found = [fetch(form, Path(path) if path is not None else cache_folder())]
    if not found:
        raise Error(
            f"{form.title} not found in {', '.join(map(str, places))}: unpack its archive "
            f"({form.url}) there, or set KERNELPRUNE_DATA to the folder that holds {form.folder}"
        )
    parts = [read_file(found[0] / name, form.labels, classes) for name in names]
    images = np.concatenate([each for each, _ in parts[:-1]])
    labels = np.concatenate([each for _, each in parts[:-1]])
    return images, labels, *parts[-1]


def fetch(form: CifarForm, folder: Path, timeout: float = 60.0) -> Path:
    """Downloads and unpacks the archive into ``folder``; nothing appears there unchecked.

    Raises:
        Error: No connection, or the bytes are not those of the data set.
    """
    place = folder / form.folder
    check_writable(place)
    try:
        with urllib.request.urlopen(form.url, timeout=timeout) as response:
            packed = response.read()
        if hashlib.md5(packed, usedforsecurity=False).hexdigest() != form.md5:
            raise Error(f"{form.url}: wrong checksum, not {form.title}'s archive")
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for name in (*form.train, form.test):
                member = archive.extractfile(f"{form.folder}/{name}")
                assert member is not None
                write_bytes(place / name, member.read())
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise Error(
            f"cannot download {form.url} ({error}); put {form.folder} in {folder}"
        ) from error
    return place
