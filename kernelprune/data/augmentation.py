"""Random changes of training images."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image.

    Attributes:
        shift: Moves by up to so many pixels along each axis, filling with the border's value.
        flip: Mirrors left and right with probability 1/2.
        crop: Takes a random part of each file, mirrored or not, see :class:`ImageFiles`; then the
            others do not count.
    """

    shift: int = 0
    flip: bool = False
    crop: bool = False


def augment(
    images: torch.Tensor, augmentation: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Shifts and flips every image of ``[N, C, H, W]`` on its own; the shape stays."""
    count, _, height, width = images.shape
    row = torch.arange(height).expand(count, height)
    column = torch.arange(width).expand(count, width)
    if augmentation.shift > 0:
        reach = 2 * augmentation.shift + 1
        moves = torch.randint(0, reach, (2, count, 1), generator=generator) - augmentation.shift
        row = (row + moves[0]).clamp(0, height - 1)
        column = (column + moves[1]).clamp(0, width - 1)
    if augmentation.flip:
        flipped = torch.rand((count, 1), generator=generator) < 0.5
        column = torch.where(flipped, column.flip(1), column)
    image = torch.arange(count)[:, None, None]
    # Indices on both sides of a slice put the sliced axis last: [N, H, W, C].
    return images[image, :, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)
