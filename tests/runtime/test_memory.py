"""Memory that cannot be had is one clear error, and never the end of the process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder

# Sanitizers keep what was freed, and need address space of their own.
PLAIN_LINUX = sys.platform == "linux" and "libasan" not in Path("/proc/self/maps").read_text()

PROGRAM = """
import resource, sys
import numpy as np
from kernelprune import Engine, Error, _core
path, what = sys.argv[1:]
def leave(mebibytes):
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + (mebibytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    if what == "load":
        leave(8)
        Engine(path)
    engine = Engine(path)
    shape = engine.inputs[0][1]
    image = np.zeros((1, *shape), np.float32)
    if what == "workspace":
        leave(48)
        engine.run(image)
    elif what == "outputs":
        leave(8)
        engine.run(image)
    else:
        leave(48)
        engine.run_reference(image)
except Error as error:
    print(error)
"""

MESSAGES = {
    "load": "not enough memory",
    "workspace": "not enough memory for .* MiB of activations",
    "outputs": "not enough memory",
    "reference": "not enough memory",
}


@pytest.mark.skipif(not PLAIN_LINUX, reason="limits the memory of a process")
@pytest.mark.parametrize("what", MESSAGES)
def test_memory_that_cannot_be_had_is_an_error(what: str, tmp_path: Path) -> None:
    """If this fails, a server that runs out of memory for one image dies, or gets an exception
    that it does not expect."""
    b = GraphBuilder(np.random.default_rng(0))
    x = b.input((1, 2048, 2048))
    y = b.conv2d(x, 2, padding=(1, 1, 1, 1))
    if what == "load":
        for _ in range(20000):
            y = b.node("add", [y, y], (2, 2048, 2048), activation="none")
    path = tmp_path / "model.safetensors"
    path.write_bytes(b.file(y))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), what], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert re.search(MESSAGES[what], done.stdout), done.stdout
