"""Patterns of connections that calls have brought, checked once, and what was planned for them.

A pattern is known by its two index tensors: the same objects, unchanged since, are the same
pattern. The planned convolutions hold copies of the indices, so that nothing that is done to the
tensors afterwards can lead a kernel out of its bounds.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from kernelprune import _core
from kernelprune.errors import ShapeError

# Kinds of calls that a pattern remembers, and planned convolutions: these may hold packed weights.
_MOST_CALLS, _MOST_CONVOLUTIONS = 4096, 64

_versions = itertools.count(1)


def _version_of(tensor: torch.Tensor) -> int:
    # Tensors made in inference mode do not count their changes.
    return -1 if tensor.is_inference() else tensor._version


class Weights:
    """Numbers the versions of the weights that one convolution is called with."""

    def __init__(self) -> None:
        # One tuple, so that threads see it whole: the tensor, its changes, our number.
        self._seen: tuple[Any, int, int] = (lambda: None, 0, 0)

    def version(self, weight: torch.Tensor) -> int:
        """Another number whenever ``weight`` is not the tensor of the last call, unchanged."""
        if weight.is_inference():
            return next(_versions)
        seen, changes = self._seen, weight._version
        if seen[0]() is not weight or seen[1] != changes:
            self._seen = seen = (weakref.ref(weight), changes, next(_versions))
        return seen[2]


@dataclass
class Call:
    """One kind of call, checked: what computes it, and a tensor without memory that is like its
    output, since ``empty_like`` takes half the time of ``empty``."""

    run: Any
    weights: Weights
    like: torch.Tensor
    batch: int


@dataclass
class Grouped:
    """Where the connections lie in the weight of a grouped convolution.

    ``shape``: [O, I/groups]; ``place``: int64 [nnz], counted through it row by row.
    """

    groups: int
    shape: tuple[int, int]
    place: torch.Tensor


class Pattern:
    """The connections that ``row_ptr`` [O+1] and ``col`` [nnz] describe."""

    def __init__(self, row_ptr: torch.Tensor, col: torch.Tensor) -> None:
        for name, tensor in (("row_ptr", row_ptr), ("col", col)):
            if tensor.dtype != torch.int32 or tensor.dim() != 1:
                raise ShapeError(
                    f"{name} must be a vector of int32, got {list(tensor.shape)} {tensor.dtype}"
                )
        if len(row_ptr) < 2:
            raise ShapeError("row_ptr must have an entry for each output channel and one more")
        self._tensors = weakref.ref(row_ptr), weakref.ref(col)
        self._changes = _version_of(row_ptr), _version_of(col)
        self._counted = -1 not in self._changes
        self.row_ptr = row_ptr.detach().cpu().contiguous().clone()
        self.col = col.detach().cpu().contiguous().clone()
        self.calls: dict[Any, Call] = {}
        self._convolutions: dict[Any, tuple[Any, Weights]] = {}
        self._gradients: dict[Any, Any] = {}
        self.layers: dict[Any, Any] = {}  # of CUDA
        self._grouped: dict[int, Grouped] = {}
        self._transposed: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        # Checks the indices; how many input channels there are only a call tells.
        self.channels = int(self.col.max()) + 1 if len(self.col) else 1
        _core.Convolution(
            self.row_ptr.data_ptr(), self.col.data_ptr(), self.out_channels, len(self.col),
            self.channels, 1, 1, [1, 1], [1, 1], [0] * 4, [1, 1],
        )  # fmt: skip

    def is_of(self, row_ptr: torch.Tensor, col: torch.Tensor) -> bool:
        """Whether these are the tensors that it was made of, unchanged."""
        rows, columns = self._tensors
        if rows() is not row_ptr or columns() is not col:
            return False
        if self._counted:
            return self._changes == (row_ptr._version, col._version)
        return self._changes == (_version_of(row_ptr), _version_of(col))

    @property
    def out_channels(self) -> int:
        return len(self.row_ptr) - 1

    def remember(self, key: Any, call: Call) -> Call:
        if len(self.calls) >= _MOST_CALLS:
            self.calls.clear()
        self.calls[key] = call
        return call

    def _make(
        self,
        kind: Any,
        image: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        threads: int,
    ) -> Any:
        """What the core plans for this pattern. Raises ShapeError."""
        return kind(
            self.row_ptr.data_ptr(), self.col.data_ptr(), self.out_channels, len(self.col),
            *image, list(kernel), list(stride), list(padding), list(dilation), threads,
        )  # fmt: skip

    def convolution(
        self,
        image: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        threads: int,
    ) -> tuple[Any, Weights]:
        """The planned convolution of images [C,H,W], whatever their number. Raises ShapeError."""
        key = (image, kernel, *stride, *padding, *dilation, threads)
        found = self._convolutions.get(key)
        if found is None:
            if len(self._convolutions) >= _MOST_CONVOLUTIONS:
                self._convolutions.clear()
                self.calls.clear()
            planned = self._make(
                _core.Convolution, image, kernel, stride, padding, dilation, threads
            )
            found = self._convolutions[key] = (planned, Weights())
        return found

    def weight_gradient(
        self,
        image: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        threads: int,
    ) -> Any:
        """What computes the gradient for the weights of :meth:`convolution`. Raises ShapeError."""
        key = (image, kernel, *stride, *padding, *dilation, threads)
        found = self._gradients.get(key)
        if found is None:
            if len(self._gradients) >= _MOST_CONVOLUTIONS:
                self._gradients.clear()
            found = self._gradients[key] = self._make(
                _core.WeightGradient, image, kernel, stride, padding, dilation, threads
            )
        return found

    @cached_property
    def rows(self) -> torch.Tensor:
        """int64 [nnz]: the output channel of every connection."""
        ends = self.row_ptr.long()
        return torch.repeat_interleave(torch.arange(self.out_channels), ends[1:] - ends[:-1])

    def grouped(self, in_channels: int) -> Grouped:
        """As a grouped convolution with as many groups as possible."""
        found = self._grouped.get(in_channels)
        if found is None:
            col, groups = self.col.long(), 1
            most = math.gcd(in_channels, self.out_channels)
            for number in (n for n in range(most, 0, -1) if most % n == 0):
                of_output = self.rows // (self.out_channels // number)
                if torch.equal(of_output, col // (in_channels // number)):
                    groups = number
                    break
            width = in_channels // groups
            place = self.rows * width + col % width
            found = Grouped(groups, (self.out_channels, width), place)
            self._grouped[in_channels] = found
        return found

    def transposed(self, in_channels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """row_ptr and col of the connections from output to input; which connection each is."""
        found = self._transposed.get(in_channels)
        if found is None:
            order = torch.argsort(self.col, stable=True)
            row_ptr = torch.zeros(in_channels + 1, dtype=torch.int32)
            row_ptr[1:] = torch.bincount(self.col.long(), minlength=in_channels).cumsum(0)
            found = row_ptr, self.rows[order].int(), order
            self._transposed[in_channels] = found
        return found


_patterns: dict[tuple[int, int], Pattern] = {}


def pattern_of(row_ptr: torch.Tensor, col: torch.Tensor) -> Pattern:
    """Raises ShapeError the first time that these tensors are seen, if they are no pattern."""
    key = id(row_ptr), id(col)
    found = _patterns.get(key)
    if found is not None and found.is_of(row_ptr, col):
        return found
    made = Pattern(row_ptr, col)
    _patterns[key] = made
    for tensor in (row_ptr, col):
        weakref.finalize(tensor, _forget, key, weakref.ref(made)).atexit = False
    return made


def _forget(key: tuple[int, int], made: weakref.ref[Pattern]) -> None:
    if _patterns.get(key) is made():  # not another one's that has the same address now
        _patterns.pop(key, None)
