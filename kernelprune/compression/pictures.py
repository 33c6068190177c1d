"""Files of images as a network takes them, and the labels of a table."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from kernelprune.compression.options import ImageOptions
from kernelprune.data.image_folder import ENDINGS
from kernelprune.errors import Error
from kernelprune.files import opened, read_bytes
from kernelprune.graph.ir import Value

_MARGIN = 8 / 7  # the shorter side is scaled to so much of the input's, and the middle cut out


def files_in(folder: Path) -> list[Path]:
    """All images in a folder and those in it, in alphabetical order. Raises Error when there is
    none, or Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise Error("images in files are read by Pillow: pip install 'kernelprune[cli]'") from error
    if not folder.is_dir():
        raise Error(f"{folder}: no such folder")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not found:
        raise Error(f"{folder}: no images ({', '.join(ENDINGS)})")
    return found


def spread(files: Sequence[Path], count: int) -> list[Path]:
    """At most so many, from all of them: those of one class may follow each other."""
    places = np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)
    return [files[place] for place in places]


def pictures(files: Sequence[Path], value: Value, options: ImageOptions) -> torch.Tensor:
    """``[N, *shape]`` for an input of the network; bytes, as they are in the files, where it takes
    bytes. Raises Error for an input that is no image, and for a file that is none."""
    form = _Form.of(value, options)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(form.read, files))
    return torch.from_numpy(np.stack(rows))


class _Form:
    """How one input wants its images."""

    def __init__(self, height: int, width: int, channels: int, last: bool, bytes_: bool,
                 options: ImageOptions):  # fmt: skip
        self.height, self.width, self.channels = height, width, channels
        self.last, self.bytes, self.options = last, bytes_, options
        self.mean = _for_channels("mean", options.mean, channels)
        self.std = _for_channels("std", options.std, channels)

    @classmethod
    def of(cls, value: Value, options: ImageOptions) -> _Form:
        shape = tuple(value.shape)
        if len(shape) != 3:
            raise Error(
                f"the network's input '{value.name}' is {list(shape)}, which is no image; give an "
                "array: --images calibration.npy"
            )
        last = shape[2] in (1, 3) and shape[0] not in (1, 3)
        if options.layout != "auto":
            last = options.layout == "nhwc"
        channels, height, width = (shape[2], *shape[:2]) if last else shape
        if channels not in (1, 3):
            raise Error(
                f"the network's input '{value.name}' has {channels} channels; images have 1 or 3 "
                "(see --layout), else give an array: --images calibration.npy"
            )
        return cls(height, width, channels, last, value.dtype == "u8", options)

    def read(self, file: Path) -> np.ndarray:
        from PIL import Image
        from PIL.Image import Resampling

        try:
            with opened(file) as stream, Image.open(stream) as image:
                # JPEG decodes to half or a quarter of the size for next to nothing.
                image.draft("RGB", (2 * self.width, 2 * self.height))
                whole = image.convert("L" if self.channels == 1 else "RGB")
                size = self.width, self.height
                found = whole.resize(size, Resampling.BILINEAR, box=self._box(*whole.size))
        except Error:
            raise
        except Exception as error:  # decoders raise anything for a damaged file
            raise Error(f"{file}: cannot be read as an image ({error})") from error
        pixels = np.asarray(found).reshape(self.height, self.width, self.channels)
        if self.options.channels == "bgr":
            pixels = pixels[:, :, ::-1]
        if not self.bytes:
            numbers = pixels.astype(np.float32) * (self.options.white / 255)
            pixels = (numbers - self.mean) / self.std
        return np.ascontiguousarray(pixels if self.last else pixels.transpose(2, 0, 1))

    def _box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an image that is scaled to the input's size."""
        if self.options.fit == "stretch":
            return 0, 0, width, height
        scale = min(width / self.width, height / self.height) / _MARGIN
        own = self.width * scale, self.height * scale
        left, top = (width - own[0]) / 2, (height - own[1]) / 2
        return left, top, left + own[0], top + own[1]


def _for_channels(name: str, given: object, channels: int) -> np.ndarray:
    """One number for each channel; a gray image gets the mean of three."""
    numbers = np.asarray(given, np.float32)
    if len(numbers) == 1:
        numbers = np.repeat(numbers, channels)
    if channels == 1 and len(numbers) == 3:
        numbers = numbers.mean(keepdims=True)
    if len(numbers) != channels:
        raise Error(f"{name}: {len(numbers)} numbers, and the network has {channels} channels")
    return numbers


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
