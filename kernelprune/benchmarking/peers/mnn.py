"""MNN on the CPU: dense, with the sparse kernels that its converter chooses by weight sparsity, and
in int8.

The compiled tools are called directly: the package's command-line wrappers install another package,
which reports usage, as soon as they are imported.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from kernelprune.benchmarking.peers.base import TOLERANCES, Job, Outputs, Peer, Refused
from kernelprune.files import write_text
from kernelprune.frontends.onnx import output_names, write_onnx
from kernelprune.graph.ir import Graph

# The quantiser ends its process where it meets what it cannot quantise, so it has one of its own.
_QUANTISE = "import sys, MNN, _tools; _tools.mnnquant(['mnnquant', *sys.argv[1:]])"
_QUANTISE_SECONDS = 600.0


def convert(graph: Graph, batch: int, path: Path, *options: str) -> Path:
    """An MNN file, made from an ONNX file by MNN's converter."""
    with _quiet():
        import _tools
        import MNN  # noqa: F401 -- the converter needs it to be loaded first

    for node in graph.nodes:
        if node.op == "max_pool2d" and list(node.params["dilation"]) != [1, 1]:
            raise Refused(f"it ignores the dilation of the max pooling '{node.name}'")
    target = path.with_name(f"{path.name}.mnn")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = write_onnx(graph, batch, Path(folder) / "model.onnx")
        arguments = ["-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(target)]
        with _quiet():
            _tools.mnnconvert(["mnnconvert", *arguments, "--bizCode", "bench", *options])
    if not target.exists():
        raise Refused("its converter refuses this model")
    return target


def convert_sparse(graph: Graph, batch: int, path: Path) -> Path:
    """Convolutions whose weights are sparse enough are stored and run as sparse ones."""
    return convert(graph, batch, path, "--detectSparseSpeedUp")


def convert_int8(graph: Graph, batch: int, path: Path, images: list[np.ndarray]) -> Path:
    """An MNN file whose weights and activations are signed bytes; ranges by MNN's default method,
    which looks at the distribution of each value. Any batch size may run it."""
    target = path.with_name(f"{path.name}.mnn")
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        source = convert(graph, 1, folder / "float32")
        for i in range(len(images[0])):
            _write_sample(graph, [each[i] for each in images], folder / "images" / f"input_{i}")
        settings = {
            "path": f"{folder / 'images'}/",
            "input_type": "sequence",
            "used_sample_num": len(images[0]),
            "feature_quantize_method": "KL",
            "weight_quantize_method": "MAX_ABS",
        }
        write_text(folder / "settings.json", json.dumps(settings), "MNN's settings")
        done = subprocess.run(
            [sys.executable, "-c", _QUANTISE, source, target, folder / "settings.json"],
            capture_output=True,
            timeout=_QUANTISE_SECONDS,
        )
        if done.returncode != 0 or not target.exists():
            raise Refused("its quantiser refuses this model")
        _check_quantised(graph, source, target, images)
    return target


def _check_quantised(graph: Graph, source: Path, target: Path, images: list[np.ndarray]) -> None:
    """Raises Refused where the quantised file gives other outputs for the first image. It does so
    for channels without connections and for max pooling of negative numbers."""
    names = tuple(value.name for value in graph.inputs), tuple(output_names(graph))
    first = [each[:1] for each in images]
    exact, found = (
        load(Job(name, str(path), *names), first).outputs()
        for name, path in (("mnn", source), ("mnn-int8", target))
    )
    for have, want in zip(found, exact, strict=True):
        distance = float(np.linalg.norm(have - want)) / max(float(np.linalg.norm(want)), 1e-30)
        if not distance <= TOLERANCES["int8"]:
            raise Refused(f"its quantiser makes another model (relative distance {distance:.2g})")


def _write_sample(graph: Graph, arrays: list[np.ndarray], folder: Path) -> None:
    """One image as MNN's quantiser reads it: its numbers as text, and their shapes."""
    folder.mkdir(parents=True)
    shapes = []
    for value, array in zip(graph.inputs, arrays, strict=True):
        if Path(value.name).name != value.name:
            raise Refused(f"it needs a file called as the input '{value.name}'")
        numbers = " ".join(f"{number:.7g}" for number in array.ravel().tolist())
        write_text(folder / f"{value.name}.txt", numbers, "MNN's calibration image")
        shapes.append({"name": value.name, "shape": [1, *value.shape]})
    described = {"inputs": shapes, "outputs": output_names(graph)}
    write_text(folder / "input.json", json.dumps(described), "MNN's calibration image")


def load(job: Job, inputs: list[np.ndarray]) -> Peer:
    """A module of fixed shape. Its precision "high" is float32 throughout."""
    with _quiet():
        import MNN
        from MNN import expr, nn

        settings = {"backend": "CPU", "numThread": job.threads, "precision": "high"}
        manager = nn.create_runtime_manager((settings,))
        module = nn.load_module_from_file(
            job.path,
            list(job.inputs),
            list(job.outputs),
            runtime_manager=manager,
            shape_mutable=False,
        )
        variables = [expr.const(array, list(array.shape), expr.NCHW) for array in inputs]

    def call() -> list[MNN.expr.Var]:
        results = module.forward(variables)
        # Evaluation is lazy: reading the values is what waits for them.
        for result in results:
            result.read()
        return results

    def outputs() -> Outputs:
        results = module.forward(variables)
        # Inside, channels come in groups of four; the copies are in the order of everybody else.
        plain = [
            expr.convert(result, expr.NCHW) if result.data_format == expr.NC4HW4 else result
            for result in results
        ]
        return [np.array(result.read(), np.float32).reshape(result.shape) for result in plain]

    modes = {"mnn-sparse": "sparse kernels, float32", "mnn-int8": "S8S8 per channel"}
    mode = modes.get(job.name, "dense, float32")
    return Peer(job.name, mode, call, outputs, job)


@contextmanager
def _quiet() -> Iterator[None]:
    """MNN prints to the process's own streams, below Python's."""
    flush = ctypes.CDLL(None).fflush
    flush(None)
    saved = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        flush(None)
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)
