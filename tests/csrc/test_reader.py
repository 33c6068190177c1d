"""The engine's file reader: valid files of every look load, messages name file and node, and a
small file cannot claim much memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import model_bytes as mb
import numpy as np
import pytest

from kernelprune import _core
from kernelprune.errors import Error, FormatError
from kernelprune.format.reader import read_bytes
from kernelprune.runtime import Engine


def reverse_tensors(model: mb.ModelBytes) -> None:
    """Stores the tensors in the opposite order."""
    model.tensors = dict(reversed(model.tensors.items()))


def identity() -> mb.ModelBytes:
    """A graph without nodes: its output is its input."""
    graph = {"inputs": [{"name": "x", "shape": [3, 2, 2]}], "outputs": ["x"], "nodes": []}
    return mb.ModelBytes(graph, {})


def test_message_names_file_node_and_reason(tmp_path: Path) -> None:
    """If this fails, a user with many files cannot tell which one is broken, and where."""
    path = tmp_path / "broken.safetensors"
    path.write_bytes(mb.put("stem.bias", 3, np.nan)(mb.every_op()))
    expected = f"{path}: node 'stem' (conv2d): bias 3 is not a finite number"
    with pytest.raises(FormatError, match=re.escape(expected)):
        _core.check_file(str(path))


# name, edit: files that are valid although they look unusual
ACCEPTED = [
    ("as it is", mb.ModelBytes.to_bytes),
    ("tensors in another order", mb.finish(reverse_tensors)),
    (
        "header sorted otherwise",
        mb.header_text(lambda t: json.dumps(json.loads(t), sort_keys=True)),
    ),
    ("header padded with spaces", mb.header_text(lambda t: t + " " * 13)),
    ("header with line ends", mb.header_text(lambda t: json.dumps(json.loads(t), indent=1))),
    ("wide column indices", mb.tensor("stem.col", lambda a: a.astype("<u4"))),
    ("empty layer", mb.empty_layer("body")),
    ("zero kernel stored", mb.put("stem.weight", 0, 0.0)),
    ("subnormal weight", mb.put("stem.weight", 0, 1e-42)),
    ("metadata in other scripts", mb.metadata(source="r\u00e9seau \u5c42 \U0001f600")),
    ("longest name", mb.node("prob", name="p" * 200)),
    ("one output", mb.graph(lambda g: g.update(outputs=["k"]))),
    ("outputs twice", mb.graph(lambda g: g.update(outputs=["k", "k"]))),
    ("output from the middle", mb.graph(lambda g: g.update(outputs=["b", "k"]))),
    ("negative zero", mb.header_text(lambda t: t.replace("[0, ", "[-0, ", 1))),
    ("no nodes", lambda model: identity().to_bytes()),
    ("uneven padding", mb.node("pool", padding=[1, 0, 0, 1])),
]


@pytest.mark.parametrize(("name", "edit"), ACCEPTED, ids=[row[0] for row in ACCEPTED])
def test_accepted(tmp_path: Path, name: str, edit: mb.Edit) -> None:
    """If this fails, a reader refuses valid files (of another writer, another torch model), or the
    engine cannot run what its reader took."""
    content = edit(mb.every_op())
    _core.check_bytes(content)
    graph, metadata = read_bytes(content, "file")
    assert "source" in metadata
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    outputs = Engine(path).run(np.ones((3, *graph.inputs[0].shape), np.float32))
    outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    assert [y.shape for y in outputs] == [(3, *graph.shapes()[name]) for name in graph.outputs]
    assert all(np.isfinite(y).all() for y in outputs)


@pytest.mark.parametrize("kind", ["missing", "folder", "device"])
def test_not_a_file(tmp_path: Path, kind: str) -> None:
    """If this fails, a mistyped path is reported as a broken model, or the engine hangs on it."""
    path = {"missing": tmp_path / "none", "folder": tmp_path, "device": Path("/dev/zero")}[kind]
    reason = "no such file" if kind == "missing" else "not a regular file"
    with pytest.raises(Error, match=reason) as caught:
        _core.check_file(str(path))
    assert not isinstance(caught.value, FormatError)
    assert str(path) in str(caught.value)


CLAIMS = {
    "header of 64 MiB": (64 * 2**20).to_bytes(8, "little") + b"{" * 1000,
    "a million rows": mb.node("head", shape=[2**20])(mb.every_op()),
    "row_ptr of 2^32 connections": mb.put("head.row_ptr", -1, 2**32 - 1)(mb.every_op()),
    "tensor of 2^60 elements": mb.entry("head.weight", shape=[2**20, 2**20, 2**20])(mb.every_op()),
    "map of 2^31 elements": mb.graph(lambda g: g["inputs"][0].update(shape=[2**11, 2**10, 2**10]))(
        mb.every_op()
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_small_files_cannot_claim_much_memory(tmp_path: Path) -> None:
    """If this fails, a file of some kilobytes can make a server allocate gigabytes."""
    paths = []
    for name, content in CLAIMS.items():
        paths.append(str(tmp_path / name.replace(" ", "_")))
        Path(paths[-1]).write_bytes(content)
    # A fresh process, because the peak of this one may be high already.
    program = """
import sys
from kernelprune import _core
from kernelprune.errors import FormatError
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak()
for path in sys.argv[1:]:
    try:
        _core.check_file(path)
    except FormatError:
        continue
    raise SystemExit(f"{path} was accepted")
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16 * 1024, "KiB of memory for files of some kilobytes"


def test_valid_model_loads() -> None:
    """If this fails, no edit above proves anything: the model itself has to be valid."""
    _core.check_bytes(mb.every_op().to_bytes())
