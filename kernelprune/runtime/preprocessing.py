"""From a photograph to a network's input: what a model file says of it, and doing it.

Needs numpy, and Pillow to read files and to resize.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import Error, FormatError, ShapeError
from kernelprune.files import name_of, opened
from kernelprune.text import plain, read_json

if TYPE_CHECKING:
    from PIL.Image import Image

CHANNELS = ("rgb", "bgr", "gray")
LAYOUTS = ("chw", "hwc")
FITS = ("crop", "stretch")
_MAX_SIDE = 1 << 14  # of what an image is resized to: 3 GB of numbers at most
_MAX_TEXT = 1 << 22  # of labels, in characters of their json
_MAX_OWN_TEXT = 1 << 14  # of the preprocessing in json, which has eight short entries
_LARGEST = 1e6  # of numbers

# What a network was trained with, by the name that people give it.
PRESETS: dict[str, dict[str, Any]] = {
    "imagenet": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "unit": {},  # 0 to 1
    "signed": {"mean": (0.5,), "std": (0.5,)},  # -1 to 1
    "bytes": {"white": 255.0},  # 0 to 255
}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of a network.

    Attributes:
        size: Height and width of the input.
        channels: ``"rgb"``, ``"bgr"`` or ``"gray"``: their order in the input.
        layout: ``"chw"``, or ``"hwc"`` for inputs whose channels come last.
        fit: ``"crop"`` scales the image, as it is, and cuts out the middle; ``"stretch"`` scales
            each side by itself.
        margin: With ``"crop"``, the image is scaled until its shorter side is ``margin`` times that
            of the input: 8/7 makes 256 of 224.
        white: What the largest number of a pixel, 255, becomes; 0 stays 0.
        mean, std: Subtracted and divided by after that, one number for all channels or one each.
    """

    size: tuple[int, int]
    channels: str = "rgb"
    layout: str = "chw"
    fit: str = "crop"
    margin: float = 8 / 7
    white: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the input, per image."""
        count = 1 if self.channels == "gray" else 3
        return (*self.size, count) if self.layout == "hwc" else (count, *self.size)

    @classmethod
    def of(
        cls, given: Preprocessing | Mapping[str, Any] | str, shape: Sequence[int]
    ) -> Preprocessing:
        """From what a user gives for a network whose input is ``shape`` per image: one that is
        ready, some of the attributes, or the name of one of ``PRESETS``. Others follow from the
        shape. Raises Error."""
        if isinstance(given, str):
            if given not in PRESETS:
                raise Error(f"preprocessing {given!r}: must be one of {', '.join(PRESETS)}")
            given = PRESETS[given]
        if not isinstance(given, Preprocessing):
            given = _made({**_of_shape(shape, given), **given}, Error)
        if given.shape != tuple(shape):
            raise Error(
                f"preprocessing makes {list(given.shape)}, but the network takes {list(shape)}"
            )
        return given

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Of a model file. Raises FormatError."""
        try:
            found = read_json(text) if len(text) <= _MAX_OWN_TEXT else None
        except ValueError as error:
            raise FormatError(f"preprocessing is no json: {error}") from None
        if not isinstance(found, dict):
            raise FormatError("preprocessing is no object of json, or a long one")
        return _made(found, FormatError)

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    def __call__(self, image: str | os.PathLike[str] | Image | np.ndarray) -> np.ndarray:
        """float32 ``shape`` of an image: the path of a file, what Pillow has opened, or uint8
        ``[H, W, 3]`` or ``[H, W]``. Raises Error for what is no image, MissingPackage without
        Pillow."""
        picture = _opened(image, self)
        whole = _of_bytes(_upright(picture)).convert("L" if self.channels == "gray" else "RGB")
        height, width = self.size
        resized = whole.resize((width, height), _bilinear(), box=self._box(*whole.size))
        pixels = np.asarray(resized).reshape(height, width, -1)
        if self.channels == "bgr":
            pixels = pixels[:, :, ::-1]
        numbers = pixels.astype(np.float32) * np.float32(self.white / 255)
        numbers = (numbers - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(numbers if self.layout == "hwc" else numbers.transpose(2, 0, 1))

    def _box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an image that becomes the input."""
        if self.fit == "stretch":
            return 0, 0, width, height
        scale = min(width / self.size[1], height / self.size[0]) / self.margin
        own = self.size[1] * scale, self.size[0] * scale
        # Rounded, a side may be longer than the image's, which Pillow refuses.
        left, top = max(0.0, (width - own[0]) / 2), max(0.0, (height - own[1]) / 2)
        return left, top, min(left + own[0], width), min(top + own[1], height)


def labels_of(given: Sequence[str]) -> tuple[str, ...]:
    """Raises Error unless they are names, at least one, of 2^22 characters of json together."""
    if isinstance(given, (str, bytes)) or not all(isinstance(label, str) for label in given):
        raise Error("labels are a list of names, one for each class")
    found = tuple(given)
    for label in found:
        # Half a character, which json can express, can be written to no file.
        if any("\ud800" <= character <= "\udfff" for character in label):
            raise Error(f"labels: {plain(label[:80])} is not valid text")
    if not found or len(json.dumps(found)) > _MAX_TEXT:
        raise Error(f"labels: none, or more than {_MAX_TEXT:,} characters of json")
    return found


def labels_for(given: Sequence[str], output_shape: Sequence[int]) -> tuple[str, ...]:
    """The same, of a network whose first output is ``output_shape`` per image. Raises Error, too,
    unless there is one for each number of it."""
    found, classes = labels_of(given), math.prod(output_shape)
    if len(found) != classes:
        raise Error(f"there are {len(found)} labels, and the output has {classes}")
    return found


def labels_from_json(text: str) -> tuple[str, ...]:
    """Of a model file. Raises FormatError."""
    try:
        found = read_json(text) if len(text) <= _MAX_TEXT else None
    except ValueError as error:
        raise FormatError(f"labels are no json: {error}") from None
    if not isinstance(found, list):
        raise FormatError("labels are no list of names in json")
    try:
        return labels_of(found)
    except Error as error:
        raise FormatError(str(error)) from None


# ---------------------------------------------------------------- rules


def _made(given: Mapping[str, Any], kind: type[Error]) -> Preprocessing:
    """Raises ``kind``."""
    known = set(Preprocessing.__dataclass_fields__)
    if set(given) - known:
        raise kind(f"preprocessing has no {plain(sorted(map(str, set(given) - known))[0][:80])!r}")
    if "size" not in given:
        raise kind("preprocessing has no size")
    values: dict[str, Any] = {}
    for name, value in given.items():
        if hasattr(value, "tolist"):  # of numpy, of torch
            value = value.tolist()
        if isinstance(value, (list, tuple)):
            value = tuple(each.item() if hasattr(each, "item") else each for each in value)
        values[name] = value
    for name in ("mean", "std"):
        if _is_number(values.get(name)):
            values[name] = (values[name],)
    try:
        return Preprocessing(**values)
    except Error as error:
        raise kind(str(error)) from None


def _check(given: Preprocessing) -> None:
    """Raises Error."""
    size = given.size
    if (
        not isinstance(size, tuple)
        or len(size) != 2
        or not all(type(side) is int and 1 <= side <= _MAX_SIDE for side in size)
    ):
        raise Error(f"preprocessing: size is not two whole numbers from 1 to {_MAX_SIDE}")
    for name, words in (("channels", CHANNELS), ("layout", LAYOUTS), ("fit", FITS)):
        if getattr(given, name) not in words:
            raise Error(f"preprocessing: {name} must be one of {', '.join(words)}")
    if not _is_number(given.margin) or not 1 <= given.margin <= 16:
        raise Error("preprocessing: margin must be a number from 1 to 16")
    if not _is_number(given.white) or not 0 < given.white <= _LARGEST:
        raise Error("preprocessing: white must be a number above 0")
    counts = (1, 1 if given.channels == "gray" else 3)
    for name in ("mean", "std"):
        numbers = getattr(given, name)
        if not isinstance(numbers, tuple) or len(numbers) not in counts:
            raise Error(f"preprocessing: {name} must be a number, or one for each channel")
        if not all(_is_number(number) and abs(number) <= _LARGEST for number in numbers):
            raise Error(f"preprocessing: {name} must be finite numbers")
    if min(given.std) < 1 / _LARGEST:
        raise Error("preprocessing: std must be above 0")


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) < 1e300
        and math.isfinite(value)
    )


def _of_shape(shape: Sequence[int], given: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from an input's shape. Raises Error where it is none of an image."""
    if len(shape) != 3:
        raise Error(f"the network takes {list(shape)}, which is no image: no preprocessing")
    last = given.get("layout", "hwc" if shape[2] in (1, 3) and shape[0] not in (1, 3) else "chw")
    count, size = (shape[2], shape[:2]) if last == "hwc" else (shape[0], shape[1:])
    if count not in (1, 3):
        raise Error(
            f"the network takes {list(shape)}, {count} channels, and images have 1 or 3; say where "
            "they are by the layout"
        )
    return {"size": tuple(size), "layout": last, "channels": "gray" if count == 1 else "rgb"}


# ---------------------------------------------------------------- images


def _opened(image: Any, wanted: Preprocessing) -> Image:
    try:
        from PIL import Image
    except ImportError as error:
        raise Error("images are read by Pillow: pip install 'kernelprune[cli]'") from error
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
            raise ShapeError(f"an image is uint8 [H, W, 3] or [H, W], got {_shown(image)}")
        if image.ndim == 3 and image.shape[2] not in (1, 3):
            raise ShapeError(f"an image is uint8 [H, W, 3] or [H, W], got {_shown(image)}")
        array = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
        return Image.fromarray(np.ascontiguousarray(array))
    name = name_of(image)
    try:
        with opened(name) as stream, Image.open(stream) as found:
            # JPEG decodes to half or a quarter of the size for next to nothing.
            found.draft("RGB", (2 * wanted.size[1], 2 * wanted.size[0]))
            found.load()
            return found
    except Error:
        raise
    except Exception as error:  # decoders raise anything for a damaged file
        raise Error(f"{plain(name)}: cannot be read as an image ({error})") from error


def _upright(picture: Image) -> Image:
    """As the camera was held. A damaged note of that is none."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture


def _of_bytes(picture: Image) -> Image:
    """Of 16 bits a pixel, which Pillow would clip, the upper 8. Raises ShapeError for other numbers
    than those of pixels."""
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        from PIL import Image

        numbers = np.asarray(picture).astype(np.int64)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < 1 << 16:
            raise ShapeError("an image of integers has others than 0 to 65535")
        return Image.fromarray((numbers >> 8).astype(np.uint8))
    if picture.mode == "F":
        raise ShapeError("an image has pixels of 8 or 16 bits, and this one floats")
    return picture


def _shown(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _bilinear() -> Any:
    from PIL.Image import Resampling

    return Resampling.BILINEAR
