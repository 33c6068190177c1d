"""Files of images as a network takes them, and the labels of a table."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kernelprune.compression.options import ImageOptions
from kernelprune.errors import Error
from kernelprune.files import images_in, read_bytes
from kernelprune.graph.ir import Value
from kernelprune.runtime.preprocessing import Preprocessing

_NUMBERS = ("mean", "std")


def files_in(folder: Path) -> list[Path]:
    """All images in a folder and those in it, in alphabetical order. Raises Error when there is
    none, or Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise Error("images in files are read by Pillow: pip install 'kernelprune[cli]'") from error
    if not folder.is_dir():
        raise Error(f"{folder}: no such folder")
    return images_in(folder)


def spread(files: Sequence[Path], count: int) -> list[Path]:
    """At most so many, from all of them: those of one class may follow each other."""
    places = np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)
    return [files[place] for place in places]


def pictures(files: Sequence[Path], value: Value, options: ImageOptions) -> torch.Tensor:
    """``[N, *shape]`` for an input of the network; bytes, as they are in the files, where it takes
    bytes. Raises Error for an input that is no image, and for a file that is none."""
    prepare = preparation(value, options)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = np.stack(list(pool.map(prepare, files)))
    return torch.from_numpy(np.rint(found).astype(np.uint8) if value.dtype == "u8" else found)


def preparation(value: Value, options: ImageOptions) -> Preprocessing:
    """How images become an input of the network; bytes, as numbers, where it takes bytes. Raises
    Error for an input that is no image."""
    layouts = {"nchw": {"layout": "chw"}, "nhwc": {"layout": "hwc"}}
    given: dict[str, Any] = {"fit": options.fit, **layouts.get(options.layout, {})}
    plain = Preprocessing.of(given, tuple(value.shape))
    if value.dtype == "u8":
        numbers: dict[str, Any] = {"white": 255.0}
    else:
        numbers = {name: _for_channels(name, getattr(options, name), plain) for name in _NUMBERS}
        numbers["white"] = float(options.white)
    if plain.channels == "rgb":
        numbers["channels"] = options.channels
    return dataclasses.replace(plain, **numbers)


def _for_channels(name: str, given: object, prepared: Preprocessing) -> tuple[float, ...]:
    """One number for all channels, or for each; a gray image gets the mean of three."""
    numbers = np.asarray(given, np.float64).reshape(-1)
    count = 1 if prepared.channels == "gray" else 3
    if count == 1 and len(numbers) == 3:
        numbers = numbers.mean(keepdims=True)
    if len(numbers) not in (1, count):
        raise Error(f"{name}: {len(numbers)} numbers, and the network has {count} channels")
    return tuple(map(float, numbers))


def labels_in(table: Path, folder: Path, files: Sequence[Path]) -> dict[Path, int]:
    """Labels of files, from lines ``name,label``: the name from the folder on, the label a whole
    number; a first line without a number is a heading. Raises Error for anything else."""
    known = {str(file.relative_to(folder)): file for file in files}
    found: dict[Path, int] = {}
    text = read_bytes(table).decode("utf-8", errors="replace")
    for number, row in enumerate(csv.reader(io.StringIO(text)), 1):
        if not row:
            continue
        words = [word.strip() for word in row]
        if len(words) != 2 or not words[1].isdecimal():
            if number == 1:
                continue
            raise Error(f"{table}: line {number} is not a file and a label, such as cat.jpg,3")
        if words[0] not in known:
            raise Error(f"{table}: line {number} names {words[0]!r}, which is not in {folder}")
        found[known[words[0]]] = int(words[1])
    if not found:
        raise Error(f"{table}: has no labels; lines are a file and a label, such as cat.jpg,3")
    return found
