"""How a file says which connections a layer has; "Patterns" in FORMAT.md.

Three forms: none at all where every output channel reads every input, one byte a connection where
neighbours in a row are close, else the indices themselves.
"""

from __future__ import annotations

import numpy as np

from kernelprune.errors import FormatError
from kernelprune.graph.connections import Connections

_NARROW = 65536  # inputs whose indices fit 16 bits
_FARTHEST = 256  # of a neighbour in a row, whose distance less one fits a byte


def encode(connections: Connections, *, compact: bool) -> dict[str, np.ndarray]:
    """The tensors ``row_ptr`` and ``col``, or none. ``compact``: not only the form of version 1."""
    inputs = connections.in_channels
    if compact and connections.count() == connections.out_channels * inputs:
        return {}
    row_ptr = connections.row_ptr.astype("<u4")
    if compact:
        distances = _distances(row_ptr.astype(np.int64), connections.col.astype(np.int64))
        if not distances.size or distances.max() <= _FARTHEST:
            return {"row_ptr": row_ptr, "col": (distances - 1).astype("u1")}
    return {"row_ptr": row_ptr, "col": connections.col.astype(_indices(inputs))}


def decode(
    outputs: int,
    inputs: int,
    row_ptr: np.ndarray | None,
    col: np.ndarray | None,
    weight: np.ndarray,
) -> Connections:
    """Of a layer's tensors as they are in a file. Raises FormatError where they are no pattern;
    whether indices ascend is for ``check_graph``."""
    if row_ptr is None or col is None:
        if len(weight) != outputs * inputs:
            raise FormatError(
                f"weight has {len(weight)} connections and col is missing, which stands for all "
                f"{outputs * inputs}"
            )
        if len(weight) >= 1 << 32:
            raise FormatError(f"weight has {len(weight)} connections, more than 32 bits count")
        every = np.arange(inputs, dtype=_indices(inputs))
        ends = np.arange(outputs + 1, dtype=np.uint32) * np.uint32(inputs)
        return Connections(inputs, ends, np.tile(every, outputs), weight)
    if col.dtype == np.uint8:
        if row_ptr.shape != (outputs + 1,):
            raise FormatError(f"row_ptr has shape {list(row_ptr.shape)}, not [{outputs + 1}]")
        col = _indices_of(row_ptr.astype(np.int64), col, inputs)
    return Connections(inputs, row_ptr, col, weight)


def _indices(inputs: int) -> str:
    return "<u2" if inputs <= _NARROW else "<u4"


def _distances(row_ptr: np.ndarray, col: np.ndarray) -> np.ndarray:
    """int64 [nnz]: of each connection from the one before it in its row, or from -1."""
    before = np.empty_like(col)
    before[1:] = col[:-1]
    before[row_ptr[:-1][np.diff(row_ptr) > 0]] = -1
    return np.asarray(col - before)


def _indices_of(row_ptr: np.ndarray, gaps: np.ndarray, inputs: int) -> np.ndarray:
    counts = np.diff(row_ptr)
    if row_ptr[0] != 0 or (counts < 0).any() or row_ptr[-1] != len(gaps):
        raise FormatError("row_ptr does not rise from 0 to the number of connections")
    sums = np.concatenate(([0], np.cumsum(gaps.astype(np.int64) + 1)))
    col = sums[1:] - 1 - np.repeat(sums[row_ptr[:-1]], counts)
    if col.size and col.max() >= inputs:
        raise FormatError(f"col names an input channel past {inputs}")
    return col.astype(_indices(inputs))
