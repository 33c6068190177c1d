"""The options of ``kernelprune.compress`` and of its command, each once. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kernelprune.errors import Error
from kernelprune.prune.checks import check_number, short
from kernelprune.prune.options import Options, option
from kernelprune.prune.reconstruction.options import CHOICES

PRECISIONS = ("float32", "int8")
JUDGES = ("auto", "evaluate", "agreement", "cosine")


@dataclass(frozen=True, kw_only=True)
class CompressOptions(Options):
    """Options of ``compress``."""

    precision: str = option(
        "float32", "float32 or int8: what the network computes with", choices=PRECISIONS
    )
    method: str = option(
        "omp", "which connections stay, as for reconstruct: l1, omp or obs", choices=CHOICES,
        command_line=True,
    )  # fmt: skip
    group: int | None = option(
        None,
        "neighbouring input channels that are kept or dropped together; default: 1, with int8 4, "
        "which its kernels read as one",
        least=1,
        command_line=True,
    )
    rounding: str = option(
        "nearest",
        "of int8 weights: to the nearest, or learned, which takes minutes for a large network",
        choices=("nearest", "learned"),
        command_line=True,
    )
    judge: str = option(
        "auto",
        "what a drop is of: evaluate, agreement (of the top class) or cosine; auto takes the first "
        "of them that there is",
        choices=JUDGES,
        command_line=True,
    )
    samples: int = option(
        1024, "images to use at most, those held out included", least=8, command_line=True
    )
    held_out: float = option(
        0.4,
        "share of the images that nothing is fitted to: half of them judge each step, half only "
        "the result",
        least=0.05,
        most=0.9,
        command_line=True,
    )
    steps: int = option(
        8, "networks that a search for max_drop makes at most", least=1, most=64, command_line=True
    )
    close: float = option(
        1.08,
        "the search ends when the fastest network that holds max_drop and the slowest that does "
        "not are within this factor",
        above=1,
        most=4,
        command_line=True,
    )
    batch: int = option(1, "images of a timed run", least=1, command_line=True)
    threads: int = option(1, "threads of a timed run", least=1, command_line=True)
    epochs: float = option(1.0, "of fine-tuning, where it is asked for", above=0, command_line=True)
    learning_rate: float = option(0.005, "of fine-tuning, at its start", above=0, command_line=True)

    @property
    def connections_together(self) -> int:
        if self.group is not None:
            return self.group
        return 4 if self.precision == "int8" else 1


def numbers_of(value: object) -> tuple[float, ...]:
    """``"0.5,0.5,0.5"``, a number, or several of them. Raises Error for anything else."""
    if isinstance(value, (tuple, list)):
        parts = list(value)
    elif isinstance(value, str):
        parts = value.split(",")
    else:
        parts = [value]
    try:
        found = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        found = ()
    if not found or not all(map(math.isfinite, found)):
        raise Error(f"{short(value)}: must be numbers with commas between them, one per channel")
    return found


def _divisors(value: object) -> tuple[float, ...]:
    found = numbers_of(value)
    for number in found:
        check_number("std", number, above=0)
    return found


@dataclass(frozen=True, kw_only=True)
class ImageOptions(Options):
    """How files of images become what a network takes."""

    mean: str | tuple[float, ...] = option(
        "0.485,0.456,0.406",
        "subtracted from each channel, in the network's order of channels; the default is that of "
        "ImageNet",
        reads=numbers_of,
        command_line=True,
    )
    std: str | tuple[float, ...] = option(
        "0.229,0.224,0.225", "each channel is then divided by it", reads=_divisors,
        command_line=True,
    )  # fmt: skip
    white: float = option(
        1.0, "what white is before the mean is subtracted: 1 or 255", above=0, command_line=True
    )
    channels: str = option(
        "rgb", "order of the network's channels", choices=("rgb", "bgr"), command_line=True
    )
    layout: str = option(
        "auto",
        "nchw or nhwc; auto: nhwc where the last side of the input is 1 or 3 and the first is not",
        choices=("auto", "nchw", "nhwc"),
        command_line=True,
    )
    fit: str = option(
        "crop",
        "crop scales the shorter side to 8/7 of the input's and cuts the middle out, stretch "
        "scales both sides",
        choices=("crop", "stretch"),
        command_line=True,
    )
