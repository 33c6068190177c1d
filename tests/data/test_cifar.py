"""CIFAR's files: found, read without running anything that is in them, checked."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kernelprune.data import load
from kernelprune.errors import Error

PIXELS = np.random.default_rng(0).integers(0, 256, (1200, 3072), dtype=np.uint8)


def write(folder: Path, per_file: int = 1200, **changed: Any) -> Path:
    """The files of CIFAR-10, as a pickle of protocol 2 like the real ones."""
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        content = {
            b"data": np.roll(PIXELS[:per_file], number, axis=0),
            b"labels": [i % 10 for i in range(per_file)],
            b"filenames": [b"a.png"] * per_file,
            **{key.encode(): value for key, value in changed.items()},
        }
        (place / name).write_bytes(pickle.dumps(content, protocol=2))
    return folder


def test_splits(tmp_path: Path) -> None:
    """If this fails, channels are mixed up, or images are trained on and tested with."""
    write(tmp_path)
    found = {split: load("cifar10", split, path=tmp_path) for split in ("train", "validation")}
    test = load("cifar10", "test", path=tmp_path / "cifar-10-batches-py")
    assert [len(found["train"]), len(found["validation"]), len(test)] == [1000, 5000, 1200]
    assert found["train"].shape == (3, 32, 32) and found["train"].classes[3] == "cat"
    assert test.labels[:12].tolist() == [*range(10), 0, 1]
    raw = np.roll(PIXELS, 5, axis=0)[:4].reshape(4, 3, 32, 32) / 255
    assert isinstance(test.images, torch.Tensor)
    for channel, (mean, std) in enumerate([(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)]):
        wanted = (raw[:, channel] - mean) / std
        assert np.allclose(test.images[:4, channel], wanted, atol=1e-5)


def test_hundred_classes(tmp_path: Path) -> None:
    """If this fails, CIFAR-100 is read with its twenty coarse labels."""
    place = tmp_path / "cifar-100-python"
    place.mkdir()
    for name, number in (("train", 6000), ("test", 300)):
        pixels = np.resize(PIXELS, (number, 3072))
        labels = [i % 100 for i in range(number)]
        content = {b"data": pixels, b"fine_labels": labels, b"coarse_labels": [0] * number}
        (place / name).write_bytes(pickle.dumps(content, protocol=2))
    test = load("cifar100", "test", path=tmp_path)
    assert len(test.classes) == 100 and test.labels[:101].tolist() == [*range(100), 0]


class _Runs:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path):
        self.folder = str(folder)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    """If this fails, a data set from anywhere can run anything."""
    write(tmp_path, labels=_Runs(tmp_path / "ran"))
    with pytest.raises(Error, match="asks for"):
        load("cifar10", path=tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": PIXELS[:, :-1]}, "no images"),
        ({"data": PIXELS.astype(np.int16)}, "no images"),
        ({"labels": [0] * 3}, "for each"),
        ({"labels": [10] * 1200}, "from 0 to 9"),
        ({"labels": [True] * 1200}, "whole number"),
    ],
)
def test_refuses_wrong_content(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    """If this fails, a wrong file is trained on without a word."""
    with pytest.raises(Error, match=message):
        load("cifar10", path=write(tmp_path, **changed))


def test_damaged_and_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a download that broke off ends in a traceback."""
    file = write(tmp_path, 10) / "cifar-10-batches-py" / "data_batch_2"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(Error, match="data_batch_2: not a file of CIFAR"):
        load("cifar10", path=tmp_path)
    file.unlink()
    with pytest.raises(Error, match="CIFAR-10 not found in .*unpack its archive"):
        load("cifar10", path=tmp_path)
