"""Files of data, damaged or hostile: one clear Error each, in memory bounded by the file."""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from kernelprune.cli.running import read_array
from kernelprune.data.fashion_mnist import read_idx
from kernelprune.data.image_folder import ImageFiles, find_images
from kernelprune.errors import Error, ShapeError
from kernelprune.files import IMAGES


def mutated(content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 3)):
        place = random.randrange(min(len(changed), 200))
        if random.random() < 0.7:
            changed[place] = random.randrange(256)
        else:
            del changed[place:]
            changed += b"\0"
    return bytes(changed)


# --- idx -----------------------------------------------------------------------------------------


def idx(numbers: np.ndarray) -> bytes:
    head = struct.pack(f">I{numbers.ndim}I", 0x0800 + numbers.ndim, *numbers.shape)
    return gzip.compress(head + numbers.tobytes(), mtime=0)


def test_mutated_idx(tmp_path: Path) -> None:
    """If this fails, some damage of a file of Fashion-MNIST is a traceback."""
    random.seed(16)
    numbers = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    content, file = idx(numbers), tmp_path / "images.gz"
    refused = 0
    for _ in range(300):
        file.write_bytes(mutated(content))
        try:
            assert read_idx(file, (3, 4, 4)).shape == (3, 4, 4)
        except Error:
            refused += 1
    assert refused > 200


def test_hostile_idx(tmp_path: Path) -> None:
    """If this fails, a small file unpacks to all memory, or a pipe in its place waits for ever."""
    file = tmp_path / "images.gz"
    file.write_bytes(gzip.compress(bytes(50 << 20)))
    tracemalloc.start()
    with pytest.raises(Error, match="not an idx file"):
        read_idx(file, (3, 4, 4))
    assert tracemalloc.get_traced_memory()[1] < 5 << 20
    tracemalloc.stop()
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(Error, match="not a regular file"):
        read_idx(file, (3, 4, 4))


# --- images --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_mutated_images(tmp_path: Path) -> None:
    """If this fails, a damaged image ends a training in a traceback, hours after its start."""
    pillow = pytest.importorskip("PIL.Image")
    random.seed(16)
    picture = pillow.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8))
    refused = 0
    for ending in IMAGES:
        stream = io.BytesIO()
        form = {".jpg": "JPEG", ".ppm": "PPM"}.get(ending, ending[1:].upper())
        picture.save(stream, form)
        file = tmp_path / f"x{ending}"
        for _ in range(40):
            file.write_bytes(mutated(stream.getvalue()))
            try:
                assert ImageFiles((file,), 8)[:1].shape == (1, 3, 8, 8)
            except Error as error:
                assert file.name in str(error)
                refused += 1
    assert refused > 60


def test_images_that_are_no_files(tmp_path: Path) -> None:
    """If this fails, a pipe or a device among the images makes a training wait for ever."""
    pytest.importorskip("PIL.Image")
    (tmp_path / "class").mkdir()
    os.mkfifo(tmp_path / "class" / "a.png")
    (tmp_path / "class" / "b.png").symlink_to("/dev/zero")
    (tmp_path / "class" / "c.png").mkdir()
    files, _, _ = find_images(tmp_path)
    assert len(files) == 3
    for file in files:
        with pytest.raises(Error, match="not a regular file"):
            ImageFiles((file,), 8)[:1]


# --- arrays --------------------------------------------------------------------------------------


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin-1")
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + size + text + data


HEADER = "{{'descr': {}, 'fortran_order': False, 'shape': {}}}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(HEADER.format("'<f4'", "(1000000000000,)")), "0 bytes are not"),
        (npy(HEADER.format("'<f4'", "(4611686018427387904, 16)")), "0 bytes are not"),
        (npy(HEADER.format("'<f4'", f"(0, {2**70})")), "not an array file"),
        (npy(HEADER.format("'<f4'", "(-1, -4)"), bytes(16)), "are not"),
        (npy(HEADER.format("'<f4'", "(2, 2)"), bytes(15)), "is it cut"),
        (npy(HEADER.format("'<f4'", "(2, 2)"), bytes(17)), "is it cut"),
        (npy(HEADER.format("'|O'", "(1,)"), b"cos\nsystem\n(S'true'\ntR."), "not an array file"),
        (npy(HEADER.format("'|V1000000000'", "(1,)")), "0 bytes are not"),
        (npy("{" * 5000), "not an array file"),
        (npy("(" * 9000), "not an array file"),
        (npy("9" * 9000), "not an array file"),
        (npy("{}"), "not an array file"),
        (npy("\0"), "not an array file"),
        (npy("{}", version=b"\x09\x00"), "not an array file"),
        (b"PK\x03\x04" + bytes(100), "several arrays"),
        (b"\x80\x04\x95", "not an array file"),
        (b"", "not an array file"),
    ],
    ids=lambda value: repr(value)[-25:],
)
def test_hostile_arrays(tmp_path: Path, content: bytes, message: str) -> None:
    """If this fails, ``run --input`` runs code of a file, takes all memory or is a traceback."""
    file = tmp_path / "x.npy"
    file.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(Error, match=message):
        read_array(file)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read(tmp_path: Path, version: tuple[int, int], order: str) -> None:
    """If this fails, an array that numpy wrote is refused, or its axes are swapped."""
    array = np.asarray(np.random.default_rng(0).random((2, 3, 4)), order=order)
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, array, version)
    assert np.array_equal(read_array(tmp_path / "x.npy"), array.astype(np.float32))
    np.save(tmp_path / "whole.npy", np.arange(3))
    with pytest.raises(ShapeError, match="holds int64"):
        read_array(tmp_path / "whole.npy")


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_mutated_arrays(tmp_path: Path) -> None:
    """If this fails, some damage of an array file is a traceback."""
    random.seed(16)
    file = tmp_path / "x.npy"
    np.save(file, np.random.default_rng(0).random((2, 3)))
    content = file.read_bytes()
    refused = 0
    for _ in range(400):
        file.write_bytes(mutated(content))
        try:
            read_array(file)
        except Error:
            refused += 1
    assert refused > 200
