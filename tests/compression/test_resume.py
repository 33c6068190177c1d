"""A run that was killed goes on, and one that was begun with something else does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from compression.networks import IMAGES, clock, small

import kernelprune as kp
from kernelprune.errors import Error

# Kills itself when the timer is called for the n-th time, which is in another step each time.
_SCRIPT = """
import os, signal, sys
import kernelprune as kp
from compression.networks import IMAGES, clock, small

calls = 0

def timer(paths):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return clock(paths)

net = kp.compress(small(), IMAGES[:1], calibration=IMAGES, speed_up=8, max_drop=0.05,
                  judge="cosine", steps=3, timer=timer, work=sys.argv[1])
net.save(sys.argv[3])
print(calls)
"""


def run(folder: Path, calls: int, out: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(folder), str(calls), str(out)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_killed_runs_go_on(tmp_path: Path) -> None:
    """If this fails, hours are lost with a kill, or what comes out depends on it."""
    whole = run(tmp_path / "whole", -1, tmp_path / "whole.safetensors")
    assert whole.returncode == 0, whole.stderr
    folder, out = tmp_path / "killed", tmp_path / "killed.safetensors"
    for calls in (2, 11, 6):  # in dense int8, behind the layers' times, in a step
        killed = run(folder, calls, out)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not out.exists()
    last = run(folder, -1, out)
    assert last.returncode == 0, last.stderr
    assert 0 < int(last.stdout) < int(whole.stdout)
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def begin(folder: Path, **more: Any) -> Any:
    settings: dict[str, Any] = {
        "calibration": IMAGES, "timer": clock, "work": folder, "density": 0.5,
        "evaluate": constant(0.5),
    }  # fmt: skip
    model = more.pop("model", None)
    return kp.compress(small() if model is None else model, **settings | more)


def constant(value: float) -> Any:
    return lambda model: value


def other_model() -> Any:
    model = small()
    with torch.no_grad():
        model.first.weight[0, 0, 0, 0] += 1e-3
    return model


def test_changes_are_refused(tmp_path: Path) -> None:
    """If this fails, steps of another network, of other images or with another setting are taken
    for those of this run."""
    folder = tmp_path / "work"
    first = begin(folder)
    seen: list[Any] = []
    again = begin(folder, timer=lambda paths: seen.append(paths) or clock(paths))
    assert again.content == first.content and again.points == first.points and not seen
    for more, words in (
        ({"model": other_model()}, "another model"),
        ({"calibration": IMAGES + 1e-3}, "another images"),
        ({"density": 0.4}, "another density"),
        ({"method": "l1"}, "another method"),
        ({"ignore": ["second"]}, "another ignore"),
        ({"evaluate": constant(0.4)}, "evaluate gave 0.5"),
        ({"fine_tune": True}, "another fine-tuning"),
    ):
        with pytest.raises(Error, match=words) as caught:
            begin(folder, **more)
        assert "\n" not in str(caught.value) and "another folder" in str(caught.value)
    assert begin(folder).points == first.points


def test_damaged_and_foreign_folders(tmp_path: Path) -> None:
    """If this fails, a file that was cut is returned as the result, or files of somebody else are
    taken for steps."""
    folder = tmp_path / "work"
    first = begin(folder)
    (folder / "step-1.safetensors").write_bytes(b"cut")
    assert begin(folder).content == first.content
    (folder / "step-1.json").write_text("{")
    assert begin(folder).content == first.content
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(Error, match="holds other files"):
        begin(foreign)
