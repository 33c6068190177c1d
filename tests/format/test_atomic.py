"""Writing is atomic: whatever happens, the path holds the old file or the whole new one."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kernelprune import Error
from kernelprune.format import Graph, Node, Value, read, write

HERE = str(Path(__file__).parent)


def big_graph(seed: int, features: int = 64) -> Graph:
    weight = np.random.default_rng(seed).standard_normal((features, features))
    node = Node("linear", "fc", ["x"], "fc", (features,), {"activation": "none"}, weight=weight)
    return Graph([Value("x", (features,))], ["fc"], [node])


@pytest.mark.parametrize("call", ["fsync", "replace", "fdopen"])
def test_failing_disk_leaves_the_old_file(tmp_path: Path, monkeypatch, call: str) -> None:
    """If this fails, a full disk costs the user the model that was there before."""
    path = tmp_path / "m"
    write(big_graph(0), path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(Error, match="No space left on device"):
        write(big_graph(1), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_interrupt_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    """If this fails, Ctrl-C while saving leaves half a model or a stray temporary file."""
    path = tmp_path / "m"
    write(big_graph(0), path)
    before = path.read_bytes()

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(big_graph(1), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


WRITER = """
import sys
sys.path.insert(0, {here!r})
from test_atomic import big_graph
from kernelprune.format import write
graphs = [big_graph(seed, 512) for seed in range(2)]
print("ready", flush=True)
while True:
    for graph in graphs:
        write(graph, {path!r})
"""


def test_killed_writer(tmp_path: Path) -> None:
    """If this fails, a killed process leaves a model file that does not load."""
    path = tmp_path / "m"
    write(big_graph(0, 512), path)
    program = WRITER.format(here=HERE, path=str(path))
    for delay in (0.0, 0.013, 0.031):
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert read(path)[0].nodes[0].weight.shape == (512, 512)


def test_permissions(tmp_path: Path) -> None:
    """If this fails, a model that colleagues could read becomes private when it is written anew."""
    path = tmp_path / "m"
    write(big_graph(0), path)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o640)
    write(big_graph(1), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
