"""How a file says which connections a layer has; "Patterns" in FORMAT.md.

Nothing where every output channel reads every input; else the shorter of a bit for each connection
that there could be and, where neighbours in a row are close, a byte for each that there is; else
the indices themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kernelprune.errors import FormatError
from kernelprune.graph.connections import Connections

_NARROW = 65536  # inputs whose indices fit 16 bits
_FARTHEST = 256  # of a neighbour in a row, whose distance less one fits a byte


def encode(connections: Connections, *, compact: bool) -> dict[str, np.ndarray]:
    """The tensors of the pattern by role. ``compact``: not only the form of version 1."""
    inputs, count = connections.in_channels, connections.count()
    if compact and count == connections.out_channels * inputs:
        return {}
    if compact and connections.out_channels * -(-inputs // 8) < count:
        return {"kept": np.packbits(connections.pattern(), axis=1, bitorder="little")}
    row_ptr = connections.row_ptr.astype("<u4")
    if compact:
        distances = _distances(row_ptr.astype(np.int64), connections.col.astype(np.int64))
        if not distances.size or distances.max() <= _FARTHEST:
            return {"row_ptr": row_ptr, "col": (distances - 1).astype("u1")}
    return {"row_ptr": row_ptr, "col": connections.col.astype(_indices(inputs))}


def decode(
    outputs: int, inputs: int, arrays: Mapping[str, np.ndarray], weight: np.ndarray
) -> Connections:
    """Of a layer's tensors by role as they are in a file. Raises FormatError where they are no
    pattern; whether indices ascend is for ``check_graph``."""
    if not arrays:
        if len(weight) != outputs * inputs:
            raise FormatError(
                f"weight has {len(weight)} connections and col is missing, which stands for all "
                f"{outputs * inputs}"
            )
        every = np.arange(inputs, dtype=_indices(inputs))
        return Connections(inputs, _ends(np.full(outputs, inputs)), np.tile(every, outputs), weight)
    if "kept" in arrays:
        return _from_bits(outputs, inputs, arrays["kept"], weight)
    row_ptr, col = arrays["row_ptr"], arrays["col"]
    if col.dtype == np.uint8:
        if row_ptr.shape != (outputs + 1,):
            raise FormatError(f"row_ptr has shape {list(row_ptr.shape)}, not [{outputs + 1}]")
        col = _indices_of(row_ptr.astype(np.int64), col, inputs)
    return Connections(inputs, row_ptr, col, weight)


def _from_bits(outputs: int, inputs: int, bits: np.ndarray, weight: np.ndarray) -> Connections:
    if bits.shape != (outputs, -(-inputs // 8)):
        raise FormatError(f"kept has shape {list(bits.shape)}, not {[outputs, -(-inputs // 8)]}")
    kept = np.unpackbits(bits, axis=1, bitorder="little").view(bool)
    if kept[:, inputs:].any():
        raise FormatError(f"kept names an input channel past {inputs}")
    counts = np.count_nonzero(kept, axis=1)
    if counts.sum() != len(weight):
        raise FormatError(f"weight has {len(weight)} connections, but kept has {counts.sum()}")
    return Connections(inputs, _ends(counts), np.nonzero(kept)[1].astype(_indices(inputs)), weight)


def _ends(counts: np.ndarray) -> np.ndarray:
    """The ``row_ptr`` of rows of so many connections. Raises FormatError."""
    ends = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    if ends[-1] >= 1 << 32:
        raise FormatError(f"there are {ends[-1]} connections, more than 32 bits count")
    return ends.astype(np.uint32)


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
