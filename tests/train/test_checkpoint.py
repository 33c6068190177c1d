"""Checkpoints: complete or absent, whatever happens while one is written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from kernelprune.errors import Error
from kernelprune.model_files import CHECKPOINT_FILES
from kernelprune.train import (
    Checkpoint,
    checkpoint as module,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)


def make(step: int) -> Checkpoint:
    tensors = {"layer.weight": torch.full((3, 2), float(step)), "steps": torch.tensor(step)}
    return Checkpoint(tensors, {"momentum.layer.weight": torch.ones(3, 2)}, {"step": step})


def test_round_trip(tmp_path: Path) -> None:
    """If this fails, a checkpoint does not give back what went in."""
    weight = torch.arange(6.0).reshape(2, 3).t()  # not contiguous
    saved = Checkpoint(
        {"weight": weight, "tied": weight}, {}, {"step": 7, "options": {"model": "vgg16"}}
    )
    path = save_checkpoint(tmp_path / "run", saved)
    for folder in (tmp_path / "run", path):
        found = load_checkpoint(folder)
        assert torch.equal(found.model["weight"], weight)
        assert torch.equal(found.model["tied"], weight)
        assert found.step == 7
        assert found.state["options"] == {"model": "vgg16"}


def test_only_the_newest_is_kept(tmp_path: Path) -> None:
    """If this fails, a long training fills the disk, or resumes from an old checkpoint."""
    for step in (1, 2, 2, 3):
        save_checkpoint(tmp_path, make(step))
    assert len(list(tmp_path.iterdir())) == 1
    assert load_checkpoint(tmp_path).step == 3


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, no clean-up may be relied on."""


@pytest.mark.parametrize("function", ["save_file", "fsync", "replace", "rmtree"])
@pytest.mark.parametrize("call", [0, 1, 2])
def test_killed_while_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, call: int
) -> None:
    """If this fails, a process killed while it writes a checkpoint has lost its training."""
    save_checkpoint(tmp_path, make(1))
    place = {"replace": os, "fsync": os, "rmtree": shutil}.get(function, module)
    genuine = getattr(place, function)
    count = 0

    def killed(*arguments: object, **options: object) -> object:
        nonlocal count
        count += 1
        if count > call:
            raise Killed
        return genuine(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(place, function, killed)
        try:
            save_checkpoint(tmp_path, make(2))
        except Killed:
            pass
    found = load_checkpoint(tmp_path)
    assert found.step in (1, 2)
    assert torch.equal(found.model["layer.weight"], make(found.step).model["layer.weight"])
    save_checkpoint(tmp_path, make(3))
    assert [path.name for path in tmp_path.iterdir()] == [latest_checkpoint(tmp_path).name]
    assert load_checkpoint(tmp_path).step == 3


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damage_is_reported(tmp_path: Path, name: str, damage: str) -> None:
    """If this fails, a damaged checkpoint ends in a traceback or is taken as it is."""
    file = save_checkpoint(tmp_path, make(1)) / name
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[0] ^= 0xFF
    else:
        content.clear()
    file.write_bytes(bytes(content))
    with pytest.raises(Error, match=name.split(".")[0]):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not the state"),
        ({"version": 9}, "version 9"),
        ({"step": "many"}, "step"),
    ],
)
def test_foreign_state_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    """If this fails, a file of another program or version is read as ours."""
    file = save_checkpoint(tmp_path, make(1)) / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(Error, match=message):
        load_checkpoint(tmp_path)


def test_no_checkpoint(tmp_path: Path) -> None:
    """If this fails, a wrong folder is answered with a traceback."""
    assert latest_checkpoint(tmp_path / "missing") is None
    with pytest.raises(Error, match="no checkpoint here"):
        load_checkpoint(tmp_path)


def test_unwritable_folder(tmp_path: Path) -> None:
    """If this fails, a file in the way of the folder ends in a traceback."""
    (tmp_path / "run").write_text("a file")
    with pytest.raises(Error, match="cannot write the checkpoint"):
        save_checkpoint(tmp_path / "run", make(1))


def test_no_pickle_inside(tmp_path: Path) -> None:
    """If this fails, opening a stranger's checkpoint may run code."""
    path = save_checkpoint(tmp_path, make(1))
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}
    assert sorted(file.name for file in path.iterdir()) == sorted(CHECKPOINT_FILES)
