"""What users may say to an engine, checked before the core sees it."""

from __future__ import annotations

import math
import operator
import os
import sys
from dataclasses import dataclass
from typing import Any

from kernelprune import _core
from kernelprune.errors import DeviceError, Error

PRECISIONS = ("fast", "strict")
CUDA_PRECISIONS = ("tf32", "half")  # for GPUs, which have no plans
_MAX_THREADS = _MAX_LANES = 1024


@dataclass(frozen=True)
class Options:
    """How an engine computes; ``lanes`` is None where the plan is to choose."""

    device: str
    threads: int
    isa: str
    lanes: int | None
    precision: str


def checked_options(device: Any, threads: Any, isa: Any, lanes: Any, precision: Any) -> Options:
    """The options of :class:`kernelprune.Engine`.

    Raises:
        Error: One is of the wrong type or out of range.
        DeviceError: This machine or build lacks the instruction set; the device does not go with
            the precision.
    """
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(device, torch.device):
        device = str(device)
    if not _is_word(device):
        raise Error(f"device={shown(device)}: must be 'cpu', 'cuda', 'cuda:1', ...")
    known = (*PRECISIONS, *CUDA_PRECISIONS)
    if not isinstance(precision, str) or precision not in known:
        raise Error(f"precision must be one of {', '.join(known)}, got {shown(precision)}")
    if device == "cpu" and precision in CUDA_PRECISIONS:
        raise DeviceError(
            f"precision {precision!r} is for CUDA devices; the CPU has {', '.join(PRECISIONS)}"
        )
    return Options(
        device,
        whole_number(threads, "threads", 1, _MAX_THREADS),
        checked_isa(isa),
        None if lanes is None else whole_number(lanes, "lanes", 1, _MAX_LANES),
        precision,
    )


def checked_isa(isa: Any) -> str:
    """The instruction set that ``isa`` stands for; None is the default one.

    Raises:
        Error: ``isa`` is no text.
        DeviceError: This machine or build lacks it.
    """
    if isa is not None and not isinstance(isa, str):
        raise Error(f"isa={shown(isa)}: must be a text or None")
    if isa and not _is_word(isa):
        raise DeviceError(f"isa={shown(isa)}: no such instruction set")
    return _core.select_isa(isa or "")


def whole_number(value: Any, name: str, least: int, most: int) -> int:
    """``value`` as an int.

    Raises:
        Error: It is no whole number from ``least`` to ``most``.
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number <= most:
        raise Error(f"{name}={shown(value)}: must be a whole number from {least} to {most:,}")
    return number


def duration(value: Any, name: str) -> float:
    """Seconds as a float.

    Raises:
        Error: It is no finite number above 0.
    """
    try:
        seconds = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise Error(f"{name}={shown(value)}: must be a finite number of seconds above 0")
    return seconds


def shown(value: Any) -> str:
    """A value for a message: short, and on one line."""
    try:
        text = repr(value)
    except Exception:  # whatever the user's object raises; and numbers of thousands of digits
        text = f"a value of type {type(value).__name__}"
    return " ".join(text.split())[:80]


def _is_word(value: Any) -> bool:
    printable = isinstance(value, str) and value.isascii() and value.isprintable()
    return printable and 0 < len(value) <= 40
