"""Checkpoints: a folder with ``model.safetensors``, ``optimizer.safetensors`` and ``state.json``.

No pickle: opening a checkpoint of a stranger runs no code. A checkpoint is written into a temporary
folder, flushed to disk, then renamed; the one before it is removed only afterwards. So at whatever
point a process is killed, a complete checkpoint remains.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from kernelprune.errors import Error

_NAME = re.compile(r"checkpoint-(\d{6})")
_FORMAT = "kernelprune-checkpoint"
_VERSION = 1
_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


@dataclass
class Checkpoint:
    """What is needed to go on.

    Attributes:
        model: The model's ``state_dict``.
        optimizer: Flat: momentum of parameter ``p`` as ``momentum.p``; torch's generator state as
            ``torch_rng_state``.
        state: JSON: step, options and whatever the caller adds.
    """

    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])


def _sync(path: Path) -> None:
    """Has the system write a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Makes the folder, so that hours of training do not end with one that cannot be written.

    Raises:
        Error: It cannot.
    """
    run = Path(folder)
    try:
        run.mkdir(parents=True, exist_ok=True)
        probe = run / f".writing-{os.getpid()}"
        probe.mkdir(exist_ok=True)
        probe.rmdir()
    except OSError as error:
        raise Error(f"cannot write checkpoints into {run}: {error.strerror}") from error


def save_checkpoint(folder: str | os.PathLike[str], checkpoint: Checkpoint) -> Path:
    """Writes ``folder/checkpoint-<number>`` and then removes the older ones of ``folder``.

    Numbers only grow, so a new checkpoint never has to replace one of the same name.

    Raises:
        Error: The folder cannot be written.
    """
    run = Path(folder)
    older = _complete(run)
    target = run / f"checkpoint-{older[-1][0] + 1 if older else 0:06d}"
    partial = run / f".writing-{os.getpid()}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, tensors in (("model", checkpoint.model), ("optimizer", checkpoint.optimizer)):
            # Copies: safetensors refuses tensors that share memory, such as tied weights.
            copies = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
            save_file(copies, partial / f"{name}.safetensors")
        state = {"format": _FORMAT, "version": _VERSION, **checkpoint.state}
        (partial / "state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        for name in _FILES:
            _sync(partial / name)
        _sync(partial)
        os.replace(partial, target)
        _sync(run)
    except OSError as error:
        raise Error(f"cannot write the checkpoint {target}: {error}") from error
    for _, old in older:
        shutil.rmtree(old, ignore_errors=True)
    for leftover in run.glob(".writing-*"):  # of processes that were killed while writing
        shutil.rmtree(leftover, ignore_errors=True)
    return target


def _complete(run: Path) -> list[tuple[int, Path]]:
    found = []
    for entry in run.iterdir() if run.is_dir() else ():
        match = _NAME.fullmatch(entry.name)
        if match and all((entry / name).is_file() for name in _FILES):
            found.append((int(match.group(1)), entry))
    return sorted(found)


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The newest complete checkpoint: ``folder`` itself if it is one; None if there is none."""
    run = Path(folder)
    if all((run / name).is_file() for name in _FILES):
        return run
    found = _complete(run)
    return found[-1][1] if found else None


def load_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint, or the newest one of the folder of a run.

    Raises:
        Error: There is none, or it is damaged.
    """
    path = latest_checkpoint(folder)
    if path is None:
        raise Error(f"{folder}: no checkpoint here (a folder with {', '.join(_FILES)})")
    state = _read(path / "state.json", lambda file: json.loads(file.read_text(encoding="utf-8")))
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise Error(f"{path / 'state.json'}: not the state of a kernelprune checkpoint")
    if state.get("version") != _VERSION:
        raise Error(f"{path}: checkpoint version {state.get('version')}, this reads {_VERSION}")
    if not isinstance(state.get("step"), int):
        raise Error(f"{path / 'state.json'}: has no whole number 'step'")
    return Checkpoint(
        _read(path / "model.safetensors", load_file),
        _read(path / "optimizer.safetensors", load_file),
        state,
    )


def _read(file: Path, reader: Callable[[Path], Any]) -> Any:
    try:
        return reader(file)
    except (OSError, ValueError, SafetensorError) as error:
        raise Error(f"{file}: damaged or unreadable ({error})") from error
