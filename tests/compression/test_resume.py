"""A run that was killed goes on, and one that was begun with something else does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from compression.networks import IMAGES, clock, small

import kernelprune as kp
from kernelprune.errors import Error

# Runs in children of one process, which all have imported torch. A child kills itself when the
# timer is called for the n-th time, which is in another step each time.
_SCRIPT = """
import os, signal, sys
import kernelprune as kp
from compression.networks import IMAGES, clock, small
from kernelprune.compression.compress import compress

def run(folder, last, out):
    calls = 0

    def timer(paths):
        nonlocal calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return clock(paths)

    net = compress(small(), IMAGES[:1], calibration=IMAGES, speed_up=8, max_drop=0.05,
                   judge="cosine", steps=2, timer=timer, work=folder)
    net.save(out)
    return calls

for folder, last, out in zip(*[iter(sys.argv[1:])] * 3):
    child = os.fork()
    if child == 0:
        print(run(folder, int(last), out), flush=True)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        print("killed" if os.WTERMSIG(status) == signal.SIGKILL else "crashed", flush=True)
"""


def test_killed_runs_go_on(tmp_path: Path) -> None:
    """If this fails, hours are lost with a kill, or what comes out depends on it."""
    files = [tmp_path / f"{name}.safetensors" for name in ("whole", "cut", "killed")]
    arguments: list[object] = [tmp_path / "whole", -1, files[0]]
    for calls in (2, 11, 6):  # in dense int8, behind the layers' times, in a step
        arguments += [tmp_path / "killed", calls, files[1]]
    arguments += [tmp_path / "killed", -1, files[2]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *map(str, arguments)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    whole, *killed, last = done.stdout.split()
    assert killed == ["killed"] * 3, done
    assert 0 < int(last) < int(whole)
    assert files[2].read_bytes() == files[0].read_bytes() and not files[1].exists()


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
