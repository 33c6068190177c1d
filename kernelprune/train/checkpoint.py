"""Checkpoints: a folder with ``model.safetensors``, ``optimizer.safetensors`` and ``state.json``.

No pickle: opening a checkpoint of a stranger runs no code, and whatever is in it, it loads or there
is one Error. The one before a new one is removed only when that is on disk, so at whatever point a
process is killed, a complete checkpoint remains.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from kernelprune.errors import Error
from kernelprune.files import name_of, new_folder, read_bytes
from kernelprune.model_files import CHECKPOINT, CHECKPOINT_FILES
from kernelprune.prune.checks import short
from kernelprune.prune.weights import present_names
from kernelprune.text import read_json
from kernelprune.train.options import PruneOptions, TrainOptions

_NAME = re.compile(r"checkpoint-(\d{6})")
_VERSION = 1
_MOST_STATE = 64 << 20


@dataclass
class Checkpoint:
    """What is needed to go on.

    Attributes:
        model: The model's ``state_dict``.
        optimizer: Flat: momentum of parameter ``p`` as ``momentum.p``; torch's generator state as
            ``torch_rng_state``.
        state: JSON: step, options and whatever the caller adds.
        source: Its folder, for messages.
    """

    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    state: dict[str, Any]
    source: str = "the checkpoint"

    @property
    def step(self) -> int:
        return int(self.state["step"])


def save_checkpoint(folder: str | os.PathLike[str], checkpoint: Checkpoint) -> Path:
    """Writes ``folder/checkpoint-<number>`` and then removes the older ones of ``folder``.

    Numbers only grow, so a new checkpoint never has to replace one of the same name.

    Raises:
        Error: The folder cannot be written.
    """
    run = Path(name_of(folder))
    older = _numbered(run)
    target = run / f"checkpoint-{older[-1][0] + 1 if older else 0:06d}"
    with new_folder(target, "the checkpoint") as partial:
        for name, tensors in (("model", checkpoint.model), ("optimizer", checkpoint.optimizer)):
            # Copies: safetensors refuses tensors that share memory, such as tied weights.
            copies = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
            try:
                save_file(copies, partial / f"{name}.safetensors", {"format": CHECKPOINT})
            except SafetensorError as error:  # so it reports a full disk
                raise Error(f"{target}: cannot write the checkpoint: {error}") from error
        state = {"format": CHECKPOINT, "version": _VERSION, **checkpoint.state}
        (partial / "state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    remove_older(run)
    return target


def remove_older(folder: str | os.PathLike[str]) -> None:
    """Leaves only the newest complete checkpoint in the folder of a run, if there is one."""
    found = _numbered(Path(name_of(folder)))
    newest = next((number for number, path in reversed(found) if _is_complete(path)), -1)
    for number, path in found:
        if number < newest:
            shutil.rmtree(path, ignore_errors=True)


def _numbered(run: Path) -> list[tuple[int, Path]]:
    """Checkpoints in the folder of a run, also those of which a part is gone."""
    try:
        entries = list(run.iterdir()) if run.is_dir() else []
    except (OSError, ValueError) as error:
        raise Error(f"{run}: cannot be read: {error}") from error
    matches = [(_NAME.fullmatch(entry.name), entry) for entry in entries]
    return sorted((int(match.group(1)), entry) for match, entry in matches if match)


def _is_complete(folder: Path) -> bool:
    try:
        return all((folder / name).is_file() for name in CHECKPOINT_FILES)
    except OSError as error:
        raise Error(f"{folder}: cannot be read: {error.strerror}") from error


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The newest complete checkpoint: ``folder`` itself if it is one; None if there is none.

    Raises:
        Error: The folder cannot be read.
    """
    run = Path(name_of(folder))
    if _is_complete(run):
        return run
    return next((path for _, path in reversed(_numbered(run)) if _is_complete(path)), None)


def load_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint, or the newest one of the folder of a run.

    Raises:
        Error: There is none, or it is damaged: everything is checked that can be without the model.
    """
    path = latest_checkpoint(folder)
    if path is None:
        raise Error(f"{folder}: no checkpoint here (a folder with {', '.join(CHECKPOINT_FILES)})")
    state = _read(path / "state.json", lambda file: read_json(read_bytes(file, _MOST_STATE)))
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT:
        raise Error(f"{path / 'state.json'}: not the state of a kernelprune checkpoint")
    if state.get("version") != _VERSION:
        raise Error(f"{path}: checkpoint version {state.get('version')}, this reads {_VERSION}")
    try:
        _check_state(state)
    except Error as error:
        raise Error(f"{path / 'state.json'}: {error}") from None
    tensors = [_read(path / f"{name}.safetensors", load_file) for name in ("model", "optimizer")]
    return Checkpoint(tensors[0], tensors[1], state, str(path))


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's weights into ``model``, whose names, shapes and types they must have.

    Raises:
        Error: It is not, or a number is not finite.
    """
    wanted, found = model.state_dict(), present_names(checkpoint.model)
    for name in sorted({*wanted, *found}):
        if name not in found or name not in wanted:
            has = "has no" if name not in found else "also has a"
            raise Error(f"{checkpoint.source} is of another model: it {has} tensor '{name}'")
        check_tensor(found[name], wanted[name], f"{checkpoint.source}: tensor '{name}'")
    model.load_state_dict(found)


def check_tensor(found: torch.Tensor, wanted: torch.Tensor, what: str) -> None:
    """Raises Error unless ``found`` has the shape and the type of ``wanted`` and is finite."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        have, want = ([list(each.shape), str(each.dtype)] for each in (found, wanted))
        raise Error(f"{what} is of another model: {have[0]} {have[1]}, not {want[0]} {want[1]}")
    if found.is_floating_point() and not bool(found.isfinite().all()):
        raise Error(f"{what} holds numbers that are not finite: damaged, or the training diverged")


def _check_state(state: Mapping[str, Any]) -> None:
    """Raises Error for a value that no checkpoint has. What is not there has no check here."""
    step = state.get("step")
    if not _is_count(step):
        raise Error(f"has no whole number 'step' from 0 up, but {short(step)}")
    total = state.get("total_steps", step)
    if not _is_count(total) or total < step:
        raise Error(f"'total_steps' is {short(total)}, at step {step}")
    for name, most in (("num_classes", 1 << 20), ("momenta", 1 << 20)):
        value = state.get(name, 1)
        if not _is_count(value) or value > most:
            raise Error(f"'{name}' is {short(value)}")
    shape = state.get("shape", [1, 1, 1])
    sides = isinstance(shape, list) and len(shape) == 3
    if not sides or not all(_is_count(side) and 1 <= side <= 1 << 20 for side in shape):
        raise Error(f"'shape' is {short(shape)}, not [channels, height, width]")
    history = state.get("history", [])
    if not isinstance(history, list) or not all(map(_is_epoch, history)):
        raise Error("'history' is not a list of epochs with step, loss, accuracy, validation")
    for name, kind in (("options", TrainOptions), ("prune", PruneOptions)):
        if name in state:
            kind.from_dict(state[name])


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _is_epoch(entry: Any) -> bool:
    if not isinstance(entry, dict) or set(entry) != {"step", "loss", "accuracy", "validation"}:
        return False
    numbers = [entry["loss"], entry["accuracy"] or 0.0, entry["validation"] or 0.0]
    return _is_count(entry["step"]) and all(type(number) in (int, float) for number in numbers)


def _read(file: Path, reader: Callable[[Path], Any]) -> Any:
    try:
        return reader(file)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise Error(f"{file}: damaged or unreadable ({error})") from error
