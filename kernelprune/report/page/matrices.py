"""Which connections a layer has, as a picture: input channels from left to right, output channels
from top to bottom. What has more channels than pixels is shown as the density of each pixel."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from kernelprune.graph.connections import Connections

_LEVELS = 15  # of density, besides none: a pixel is four bits


def block_densities(connections: Connections, side: int) -> np.ndarray:
    """Share of the connections in each block of channels that are kept, float64
    ``[min(O, side), min(I, side)]``."""
    sizes = connections.out_channels, connections.in_channels
    rows, columns = (min(size, side) for size in sizes)
    # In whole numbers of 64 bits: a file may have a million channels.
    row = connections.rows().astype(np.int64) * rows // sizes[0]
    column = connections.col.astype(np.int64) * columns // sizes[1]
    kept = np.bincount(row * columns + column, minlength=rows * columns).reshape(rows, columns)
    of_row, of_column = (
        np.bincount(np.arange(size, dtype=np.int64) * blocks // size, minlength=blocks)
        for size, blocks in zip(sizes, (rows, columns), strict=True)
    )
    return kept / np.outer(of_row, of_column)


def picture(densities: np.ndarray, colour: tuple[int, int, int]) -> str:
    """A ``data:`` address of a PNG: one colour, the more opaque the denser, so that it suits a
    light and a dark page. Opacity goes with the root of the density, since pruned layers are
    sparse, and a block with a single connection is seen."""
    height, width = densities.shape
    levels = np.ceil(np.sqrt(np.clip(densities, 0, 1)) * _LEVELS).astype(np.uint8)
    padded = np.pad(levels, ((0, 0), (0, width % 2)))
    packed = padded[:, ::2] << 4 | padded[:, 1::2]
    lines = np.pad(packed, ((0, 0), (1, 0))).tobytes()  # each begins with its filter, none
    opacity = bytes(round(255 * level / _LEVELS) for level in range(_LEVELS + 1))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0)),
        (b"PLTE", bytes(colour) * (_LEVELS + 1)),
        (b"tRNS", opacity),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    ]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
