"""Finding, checking and reading the four idx files."""

from __future__ import annotations

import gzip
import struct
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from kernelprune.data import fashion_mnist, load
from kernelprune.errors import Error

IMAGES = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)


def idx_bytes(array: np.ndarray, magic: int | None = None) -> bytes:
    """An idx file of unsigned bytes, as the format says."""
    magic = 0x0800 + array.ndim if magic is None else magic
    return struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.tobytes()


def write_gz(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content))
    return path


def test_reads_an_idx_file(tmp_path: Path) -> None:
    """If this fails, images arrive scrambled."""
    file = write_gz(tmp_path / "images.gz", idx_bytes(IMAGES))
    assert np.array_equal(fashion_mnist.read_idx(file, IMAGES.shape), IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_bytes(IMAGES, magic=0x0D03), "magic"),
        (idx_bytes(IMAGES[:2]), r"holds \[2, 4, 4\]"),
        (idx_bytes(IMAGES)[:-1], "holds"),
        (idx_bytes(IMAGES) + b"x", "holds"),
        (b"", "magic"),
    ],
    ids=["float data", "another shape", "too short", "too long", "empty"],
)
def test_refuses_wrong_content(tmp_path: Path, content: bytes, message: str) -> None:
    """If this fails, a wrong file is trained on without a word."""
    file = write_gz(tmp_path / "images.gz", content)
    with pytest.raises(Error, match=message) as caught:
        fashion_mnist.read_idx(file, IMAGES.shape)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "not gzip", "flipped"])
def test_refuses_damaged_gzip(tmp_path: Path, damage: str) -> None:
    """If this fails, a download that broke off ends in a traceback of zlib."""
    packed = bytearray(gzip.compress(idx_bytes(IMAGES)))
    if damage == "cut":
        packed = packed[: len(packed) // 2]
    elif damage == "flipped":
        packed[len(packed) // 2] ^= 0xFF
    else:
        packed[:2] = b"no"
    file = tmp_path / "images.gz"
    file.write_bytes(bytes(packed))
    with pytest.raises(Error, match="images.gz"):
        fashion_mnist.read_idx(file, IMAGES.shape)


def test_checksum_is_of_the_unpacked_bytes(tmp_path: Path) -> None:
    """If this fails, files of the right shape but with other pixels pass for Fashion-MNIST."""
    file = write_gz(tmp_path / "images.gz", idx_bytes(IMAGES))
    with pytest.raises(Error, match="checksum"):
        fashion_mnist.read_idx(file, IMAGES.shape, "0" * 64)


def test_missing_files_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a new user does not learn how to get the data."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KERNELPRUNE_DATA", raising=False)
    for path in (None, tmp_path):
        with pytest.raises(Error, match="apt-get install dataset-fashion-mnist") as caught:
            load("fashion-mnist", path=path)
        assert "KERNELPRUNE_DATA" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the user's own folder is passed over."""
    monkeypatch.setenv("KERNELPRUNE_DATA", str(tmp_path))
    assert fashion_mnist.folders()[0] == tmp_path
    assert fashion_mnist.folders("elsewhere") == [Path("elsewhere")]
    for name in fashion_mnist.FILES:
        (tmp_path / name).touch()
    assert fashion_mnist.find_folder() == tmp_path


def test_download_without_network_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, being offline ends in a traceback, or leaves half a file behind."""

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(Error, match="no route to host"):
        load("fashion-mnist", path=tmp_path / "new", download=True)
    assert list((tmp_path / "new").iterdir()) == []


def test_real_files() -> None:
    """If this fails, the files on this machine are not read as Fashion-MNIST."""
    train, validation = load("fashion-mnist"), load("fashion-mnist", "validation")
    test = load("fashion-mnist", "test")
    assert (len(train), len(validation), len(test)) == (55000, 5000, 10000)
    assert train.shape == test.shape == (1, 28, 28)
    assert abs(float(train.images.mean())) < 0.01
    assert abs(float(train.images.std()) - 1) < 0.01
    counts = train.labels.bincount() + validation.labels.bincount()
    assert counts.tolist() == [6000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    # The first test images: an ankle boot, a pullover, two trousers.
    assert [test.classes[label] for label in test.labels[:4]] == [
        "Ankle boot",
        "Pullover",
        "Trouser",
        "Trouser",
    ]
