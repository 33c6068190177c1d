"""MNN on the CPU, dense, and with the sparse kernels that its converter chooses by weight sparsity.

The compiled converter is called directly: the package's command-line wrapper installs another
package, which reports usage, as soon as it is imported.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from kernelprune.benchmarking.onnx_model import write_onnx
from kernelprune.benchmarking.peers.base import Job, Outputs, Peer, Refused
from kernelprune.graph.ir import Graph


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

    mode = "sparse kernels" if job.name == "mnn-sparse" else "dense"
    return Peer(job.name, f"{mode}, float32", call, outputs, job)


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
