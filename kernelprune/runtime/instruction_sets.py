"""What the processor and this build can do."""

from __future__ import annotations

from kernelprune import _core
from kernelprune.runtime.options import checked_isa, duration

_MOST_AT_ONCE = 0.1  # seconds


def available_isas() -> list[str]:
    """Instruction sets that this machine and build can use, best first."""
    return _core.available_isas()


def fma_peak(isa: str | None = None, seconds: float = 0.05) -> float:
    """Measures the FMA peak of one core.

    Args:
        isa: Instruction set; the default one if None.
        seconds: How long to measure.

    Returns:
        Multiply-adds per second.

    Raises:
        Error: ``seconds`` is no finite number above 0.
        DeviceError: This machine or build lacks ``isa``.
    """
    isa, left = checked_isa(isa), duration(seconds, "seconds")
    best = 0.0
    while left > 0:  # in pieces, so that Ctrl-C acts
        best = max(best, _core.measure_fma_peak(isa, min(left, _MOST_AT_ONCE)))
        left -= _MOST_AT_ONCE
    return best
