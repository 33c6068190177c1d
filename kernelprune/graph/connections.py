"""The kept connections of one layer, row by row: what a file stores of a weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Connections:
    """Compressed rows: output channel o reads ``col[row_ptr[o]:row_ptr[o + 1]]``.

    ``row_ptr`` [O+1], ``col`` [nnz] ascending within a row, ``weight`` [nnz, kh, kw].
    """

    in_channels: int
    row_ptr: np.ndarray
    col: np.ndarray
    weight: np.ndarray

    def count(self) -> int:
        return int(self.col.shape[0])

    @property
    def out_channels(self) -> int:
        return int(self.row_ptr.shape[0]) - 1

    @staticmethod
    def from_dense(weight: np.ndarray) -> Connections:
        """Of ``[O, I, kh, kw]`` or ``[O, F]``; keeps a connection when any weight is not zero."""
        if weight.ndim == 2:
            weight = weight[:, :, None, None]
        kept = weight.any(axis=(2, 3))
        row_ptr = np.zeros(weight.shape[0] + 1, np.uint32)
        row_ptr[1:] = np.cumsum(np.count_nonzero(kept, axis=1))
        row, col = np.nonzero(kept)
        index = np.uint16 if weight.shape[1] <= 65536 else np.uint32
        return Connections(weight.shape[1], row_ptr, col.astype(index), weight[row, col])

    @staticmethod
    def from_groups(weight: np.ndarray, groups: int) -> Connections:
        """Of a grouped layer's ``[O, I/groups, ...]``: the block-diagonal pattern, as
        :meth:`from_dense` would find it in ``[O, I, ...]``, in memory of the weight's own size."""
        found = Connections.from_dense(weight)
        first = found.rows() // (found.out_channels // groups) * found.in_channels
        total = found.in_channels * groups
        index = np.uint16 if total <= 65536 else np.uint32
        col = (found.col + first).astype(index)
        return Connections(total, found.row_ptr, col, found.weight)

    def with_weight(self, weight: np.ndarray) -> Connections:
        """With other kernels, ``[nnz, kh, kw]``; those of zeros alone are no connections."""
        found = Connections(self.in_channels, self.row_ptr, self.col, weight)
        if weight.any(axis=(1, 2)).all():
            return found
        everything = np.ones(self.in_channels, bool)
        return found.between(np.ones(self.out_channels, bool), everything, everything)

    def between(self, outputs: np.ndarray, inputs: np.ndarray, kept: np.ndarray) -> Connections:
        """Of the ``outputs`` (bool [O]) and ``inputs`` (bool [I]) alone, which are numbered anew;
        without those that read an input outside ``kept`` (bool [I]) and those of zeros alone."""
        rows, columns = self.rows(), self.col.astype(np.int64)
        stays = outputs[rows] & (inputs & kept)[columns] & self.weight.any(axis=(1, 2))
        counts = np.bincount(rows[stays], minlength=self.out_channels)[outputs]
        row_ptr = np.zeros(len(counts) + 1, np.uint32)
        row_ptr[1:] = np.cumsum(counts)
        col = (np.cumsum(inputs) - 1)[columns[stays]].astype(self.col.dtype)
        return Connections(int(inputs.sum()), row_ptr, col, self.weight[stays])

    def pattern(self) -> np.ndarray:
        """bool ``[O, I]``: which output channel reads which input channel."""
        found = np.zeros((self.out_channels, self.in_channels), bool)
        found[self.rows(), self.col.astype(np.int64)] = True
        return found

    def rows(self) -> np.ndarray:
        """Output channel of every kept connection, [nnz]."""
        ends = self.row_ptr.astype(np.int64)
        return np.repeat(np.arange(self.out_channels), ends[1:] - ends[:-1])

    def dense(self) -> np.ndarray:
        """``[O, I, kh, kw]`` with zeros where there is no connection."""
        shape = (self.out_channels, self.in_channels, *self.weight.shape[1:])
        dense = np.zeros(shape, self.weight.dtype)
        dense[self.rows(), self.col.astype(np.int64)] = self.weight
        return dense
