"""Images in files, one folder per class, as ImageNet is kept: read when they are needed."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from kernelprune.errors import Error
from kernelprune.files import images_in, opened

if TYPE_CHECKING:
    from PIL.Image import Image

# Per channel, of ImageNet's training images scaled to 0..1.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageFiles:
    """Stands for a tensor float32 ``[N, 3, side, side]``; indexing reads the files.

    Without augmentation: the shorter side is scaled to ``side * 8 / 7`` (256 for 224), the middle
    is cut out. Files are decoded by one thread per core.
    """

    files: tuple[Path, ...]
    side: int = 224

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.files), 3, self.side, self.side))

    def first(self, count: int) -> ImageFiles:
        return ImageFiles(self.files[:count], self.side)

    def __getitem__(self, index: slice | torch.Tensor) -> torch.Tensor:
        return self.read(index)

    def read(
        self, index: slice | torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """With a ``generator``: a random part of each image (8 to 100 % of its area, sides 3:4 to
        4:3), mirrored with probability 1/2 (Szegedy et al., arXiv 1409.4842).

        Raises:
            Error: A file is no image.
        """
        numbers = torch.arange(len(self))[index].tolist()
        draws: list[list[float]] | list[None] = [None] * len(numbers)
        if generator is not None:
            draws = torch.rand((len(numbers), 5), generator=generator).tolist()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            images = list(pool.map(self._one, numbers, draws))
        if not images:
            return torch.empty((0, *self.shape[1:]))
        return torch.stack(images)

    def _one(self, number: int, draw: Sequence[float] | None) -> torch.Tensor:
        from PIL import Image

        name = self.files[number]
        try:
            with opened(name) as stream, Image.open(stream) as file:
                # JPEG decodes to half or a quarter of the size for next to nothing.
                file.draft("RGB", (2 * self.side, 2 * self.side))
                image = self._cut(file.convert("RGB"), draw)
        except Error:
            raise
        except Exception as error:  # decoders raise anything for a damaged file
            raise Error(f"{name}: cannot be read as an image ({error})") from error
        pixels = torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1) / 255
        mean, std = (torch.tensor(each)[:, None, None] for each in (_MEAN, _STD))
        return (pixels - mean) / std

    def _cut(self, image: Image, draw: Sequence[float] | None) -> Image:
        from PIL.Image import Resampling, Transpose

        width, height = image.size
        if draw is None:
            part = 7 / 8 * min(width, height)
            size, corner = (part, part), (0.5, 0.5)
        else:
            area = (0.08 + 0.92 * draw[0]) * width * height
            ratio = math.exp((2 * draw[1] - 1) * math.log(4 / 3))
            size = (min(math.sqrt(area * ratio), width), min(math.sqrt(area / ratio), height))
            corner = (draw[2], draw[3])
        left, top = corner[0] * (width - size[0]), corner[1] * (height - size[1])
        box = (left, top, left + size[0], top + size[1])
        image = image.resize((self.side, self.side), Resampling.BILINEAR, box=box)
        mirrored = draw is not None and draw[4] < 0.5
        return image.transpose(Transpose.FLIP_LEFT_RIGHT) if mirrored else image


def find_images(folder: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Files and labels of ``folder/<class>/...``, in alphabetical order, and the classes.

    Raises:
        Error: No such folder, a class without images, or Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise Error("images in files are read by Pillow: pip install 'kernelprune[cli]'") from error
    if not folder.is_dir():
        raise Error(f"{folder}: no such folder; it must hold one folder of images per class")
    try:
        return _list_images(folder)
    except OSError as error:
        raise Error(f"{folder}: cannot be read: {error.strerror}") from error


def _list_images(folder: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not classes:
        raise Error(f"{folder}: holds no folders, one per class")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = images_in(folder / name)
        files += found
        labels += [label] * len(found)
    return files, labels, tuple(classes)
