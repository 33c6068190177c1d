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
