"""Files of images become what a network takes, and its labels are read from a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kernelprune.compression.options import ImageOptions
from kernelprune.compression.pictures import files_in, labels_in, pictures, spread
from kernelprune.errors import Error
from kernelprune.graph.ir import Value

COLOUR = (200, 100, 40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, one of them in a folder; the left half is coloured."""
    (tmp_path / "more").mkdir()
    for name in ("b.png", "a.png", "more/c.png"):
        pixels = np.zeros((16, 32, 3), np.uint8)
        pixels[:, :16] = COLOUR
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def corner(folder: Path, shape: tuple[int, ...], dtype: str = "f32", **options: Any) -> Any:
    """The upper left pixel of the first image, by channel."""
    found = pictures(files_in(folder), Value("x", shape, dtype), ImageOptions(**options))
    assert tuple(found.shape) == (3, *shape)
    image = found[0].numpy()
    return image[0, 0] if shape[2] == 3 else image[:, 0, 0]


def test_channels_and_layouts(folder: Path) -> None:
    """If this fails, a network sees colours in another order, size or scale than it was trained
    with, and everything that is measured is of other images."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    plain = {"mean": 0, "std": 1}
    expected = (np.array(COLOUR) / 255 - mean) / std
    np.testing.assert_allclose(corner(folder, (3, 8, 8)), expected, rtol=1e-5)
    caffe = {"mean": "104,117,123", "std": 1, "white": 255, "channels": "bgr"}
    expected = np.array(COLOUR[::-1]) - [104, 117, 123]
    np.testing.assert_allclose(corner(folder, (8, 8, 3), **caffe), expected, rtol=1e-4)
    gray = corner(folder, (1, 8, 8), **plain)
    assert gray.shape == (1,) and 0.3 < gray[0] < 0.7
    assert corner(folder, (3, 8, 8), dtype="u8").tolist() == list(COLOUR)


def test_crop_and_stretch(folder: Path) -> None:
    """If this fails, the part of an image that is looked at is another one than was asked for."""
    files, value = files_in(folder), Value("x", (3, 8, 8))
    for fit, columns in (("stretch", 4), ("crop", 4)):
        found = pictures(files, value, ImageOptions(fit=fit, mean=0, std=1))
        assert (found[0, 0, 4] > 0.4).sum() == columns
    wide = pictures(files, Value("x", (3, 8, 4)), ImageOptions(fit="crop", mean=0, std=1))
    np.testing.assert_allclose(wide[0, 0, 0].numpy(), [200 / 255] * 2 + [0] * 2, atol=0.1)


def test_files_and_labels(folder: Path, tmp_path: Path) -> None:
    """If this fails, a label goes to another image."""
    files = files_in(folder)
    assert [file.name for file in files] == ["a.png", "b.png", "c.png"]
    assert spread(files, 2) == [files[0], files[2]] and spread(files, 9) == files
    table = tmp_path / "f.csv"
    table.write_text("file,label\nmore/c.png,3\na.png, 1\n\n")
    assert labels_in(table, folder, files) == {files[2]: 3, files[0]: 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.png,1\nx.png,2\n", "line 2 names 'x.png'"),
        ("a.png,1\nb.png,two\n", "line 2 is not"),
        ("file,label\n", "has no labels"),
    ],
)
def test_wrong_labels(folder: Path, tmp_path: Path, text: str, words: str) -> None:
    """If this fails, a table with a mistake gives an accuracy that is of nothing."""
    table = tmp_path / "f.csv"
    table.write_text(text)
    with pytest.raises(Error, match=words):
        labels_in(table, folder, files_in(folder))


def test_refusals(folder: Path) -> None:
    """If this fails, images go into an input that takes none, or a damaged file is a traceback."""
    for value, options, words in (
        (Value("x", (10,)), {}, "no image"),
        (Value("x", (4, 8, 8)), {}, "4 channels"),
        (Value("x", (3, 8, 8)), {"mean": "1,2"}, "mean: 2 numbers"),
        (Value("x", (3, 8, 8)), {"std": 0}, "above 0"),
        (Value("x", (3, 8, 8)), {"mean": "a"}, "numbers with commas"),
    ):
        with pytest.raises(Error, match=words):
            pictures(files_in(folder), value, ImageOptions(**options))
    (folder / "a.png").write_bytes(b"none")
    with pytest.raises(Error, match=r"a\.png: cannot be read"):
        pictures(files_in(folder), Value("x", (3, 8, 8)), ImageOptions())
    with pytest.raises(Error, match="no such folder"):
        files_in(folder / "none")
