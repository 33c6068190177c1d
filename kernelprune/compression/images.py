"""The images that a network is compressed with: those that it is fitted to, those that judge each
step, and those that see the result alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kernelprune.errors import Error
from kernelprune.prune.batches import Inputs
from kernelprune.prune.calibration import batches_of

_LEAST = 8
_BATCH = 32


@dataclass(frozen=True)
class Images:
    """Batches of at most 32. ``digest``: of all of them."""

    fitted: list[Inputs]
    judging: list[Inputs]
    held_out: list[Inputs]
    digest: str

    @property
    def counts(self) -> tuple[int, int, int]:
        parts = (self.fitted, self.judging, self.held_out)
        return tuple(sum(len(batch[0]) for batch in part) for part in parts)  # type: ignore[return-value]

    def calibration(self) -> list[Inputs | torch.Tensor]:
        """The fitted ones, as ``quantize`` takes them."""
        return [batch if len(batch) > 1 else batch[0] for batch in self.fitted]


def images_of(calibration: Any, model: nn.Module, samples: int, held_out: float) -> Images:
    """Shares them out, always in the same way; those of one class may follow each other. Raises
    Error for fewer than eight, and what ``batches_of`` raises."""
    batches = batches_of(calibration, model, samples)
    whole = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
    count = len(whole[0])
    if count < _LEAST:
        raise Error(
            f"calibration: {count} images are too few; give some hundred, at least {_LEAST}"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    held = min(max(round(held_out * count), 2), count - 2)
    ends = [count - held, count - held // 2, count]
    parts = [order[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    fitted, judging, rest = (_batches(tuple(x[part] for x in whole)) for part in parts)
    return Images(fitted, judging, rest, _digest(whole))


def _batches(whole: Inputs) -> list[Inputs]:
    return list(zip(*(x.split(_BATCH) for x in whole), strict=True))


def _digest(tensors: Sequence[torch.Tensor]) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()
