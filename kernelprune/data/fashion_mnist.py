"""Fashion-MNIST (Xiao, Rasul, Vollgraf, arXiv 1708.07747): finds, checks and reads its four files.

idx format: two zero bytes, a type byte (8 = unsigned byte), the rank, one big-endian u32 per axis,
then the values in row-major order.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import struct
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kernelprune.data.places import cache_folder, search_path
from kernelprune.errors import Error
from kernelprune.files import check_writable, opened, write_bytes

# File -> shape and sha256 of the *unpacked* bytes: distributions pack them differently.
FILES = {
    "train-images-idx3-ubyte.gz": (
        (60000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte.gz": (
        (60000,),
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte.gz": (
        (10000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        (10000,),
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
OFFICIAL_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"


def folders(path: str | os.PathLike[str] | None = None) -> list[Path]:
    """Folders that are searched, in this order."""
    return search_path("fashion-mnist", path, [DEBIAN_FOLDER])


def find_folder(path: str | os.PathLike[str] | None = None) -> Path | None:
    """The first folder of the search path that holds all four files; None if there is none."""
    for folder in folders(path):
        if all((folder / name).is_file() for name in FILES):
            return folder
    return None


def read_fashion_mnist(
    path: str | os.PathLike[str] | None = None, download: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images uint8 ``[60000, 28, 28]``, labels ``[60000]``, test images and labels.

    Raises:
        Error: A file is missing, damaged, or is not the one of the data set.
    """
    folder = find_folder(path)
    if folder is None and download:
        folder = fetch(Path(path) if path is not None else cache_folder() / "fashion-mnist")
    if folder is None:
        where = ", ".join(str(p) for p in folders(path) if p.name != "fashion-mnist") or path
        raise Error(
            f"Fashion-MNIST not found in {where}: on Debian or Ubuntu run 'apt-get install "
            "dataset-fashion-mnist'; else put the four files "
            f"({', '.join(FILES)}) in a folder and set KERNELPRUNE_DATA to it"
        )
    arrays = [read_idx(folder / name, *FILES[name]) for name in FILES]
    return arrays[0], arrays[1], arrays[2], arrays[3]


def read_idx(file: Path, shape: tuple[int, ...], sha256: str | None = None) -> np.ndarray:
    """Reads a gzipped idx file of unsigned bytes.

    Args:
        file: The ``.gz`` file.
        shape: The shape that its header must state.
        sha256: Of the unpacked bytes; None to take any content.

    Raises:
        Error: The file cannot be read, or header, size or checksum are wrong.
    """
    size = 4 + 4 * len(shape) + math.prod(shape)
    with opened(file) as packed:
        unpacked = _unpack(packed, size + 1, str(file))
    header = _check_idx(unpacked, str(file), shape, sha256)
    return np.frombuffer(unpacked, np.uint8, offset=header).reshape(shape)


def _unpack(packed: BinaryIO, most: int, name: str) -> bytes:
    """At most so many bytes of what a gzip file holds. Raises Error, with ``name``."""
    try:
        with gzip.open(packed) as stream:
            return stream.read(most)
    except (OSError, EOFError, ValueError, zlib.error, struct.error) as error:
        raise Error(f"{name}: cannot be unpacked ({error}); install or copy it again") from error


def _check_idx(unpacked: bytes, name: str, shape: tuple[int, ...], sha256: str | None) -> int:
    """The length of an idx file's header. Raises Error unless it has this shape and checksum."""
    header = 4 + 4 * len(shape)
    magic = 0x0800 + len(shape)
    if len(unpacked) < header or struct.unpack(">I", unpacked[:4])[0] != magic:
        raise Error(f"{name}: not an idx file of {len(shape)} axes of bytes (wrong magic number)")
    found = struct.unpack(f">{len(shape)}I", unpacked[4:header])
    if found != shape or len(unpacked) != header + math.prod(shape):
        raise Error(f"{name}: holds {list(found)} ({len(unpacked)} bytes), not {list(shape)}")
    if sha256 is not None and hashlib.sha256(unpacked).hexdigest() != sha256:
        raise Error(f"{name}: wrong checksum, not Fashion-MNIST's; install or copy it again")
    return header


def fetch(folder: Path, url: str = OFFICIAL_URL, timeout: float = 30.0) -> Path:
    """Downloads the four files into ``folder``; a file appears there only once it is checked.

    Raises:
        Error: No connection, or the bytes are not those of the data set.
    """
    check_writable(folder)
    for name, (shape, sha256) in FILES.items():
        target = folder / name
        if target.is_file():
            continue
        try:
            with urllib.request.urlopen(url + name, timeout=timeout) as response:
                packed = response.read()
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise Error(
                f"cannot download {url + name} ({error}); on Debian or Ubuntu run 'apt-get install "
                f"dataset-fashion-mnist', else put the file in {folder} by hand"
            ) from error
        size = 4 + 4 * len(shape) + math.prod(shape)
        _check_idx(_unpack(io.BytesIO(packed), size + 1, url + name), url + name, shape, sha256)
        write_bytes(target, packed)
    return folder
