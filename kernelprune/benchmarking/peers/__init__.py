"""The engines to compare with, one file each. All compute in float32.

A peer's own model file is made first (``convert``) and is not timed. Then the peer loads it and
sets itself up for one batch size, as its own guide says it is fastest, with its threads pinned to
the number asked for (``load``). A peer that is not installed, or cannot run a model, is reported.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kernelprune.benchmarking.peers import mnn, onnx_runtime, openvino_cpu, pytorch
from kernelprune.benchmarking.peers.base import Job, NotInstalled, Outputs, Peer, Refused
from kernelprune.errors import Error
from kernelprune.graph.ir import Graph

__all__ = [
    "KINDS",
    "Job",
    "NotInstalled",
    "Outputs",
    "Peer",
    "Refused",
    "convert_peer",
    "load_peer",
    "make_peer",
]


@dataclass(frozen=True)
class Kind:
    """How to get from a graph to a peer that is ready to run.

    Attributes:
        package: What pip calls it.
        convert: Writes the graph as the peer's own file for a batch size; returns its path.
        load: The file to a peer, ready to run on these inputs.
        sparse: It profits from dropped kernels: it runs the pruned file, not the dense one.
    """

    package: str
    convert: Callable[[Graph, int, Path], Path]
    load: Callable[[Job, list[np.ndarray]], Peer]
    sparse: bool = False


KINDS = {
    "torch": Kind("torch", pytorch.convert, pytorch.load),
    "onnxruntime": Kind("onnxruntime", onnx_runtime.convert, onnx_runtime.load),
    "openvino": Kind("openvino", openvino_cpu.convert, openvino_cpu.load),
    "mnn": Kind("MNN", mnn.convert, mnn.load),
    "mnn-sparse": Kind("MNN", mnn.convert_sparse, mnn.load, sparse=True),
}


def convert_peer(
    name: str,
    graph: Graph,
    batch: int,
    folder: Path,
    *,
    threads: int = 1,
    torch_compile: bool = False,
) -> Job:
    """Writes the peer's own model file into ``folder``.

    Raises:
        NotInstalled: Its package is missing.
        Refused: Its package cannot hold this model.
    """
    path = _guarded(name, lambda: KINDS[name].convert(graph, batch, folder / f"{name}-{batch}"))
    inputs = tuple(value.name for value in graph.inputs)
    return Job(name, str(path), inputs, tuple(graph.outputs), threads, torch_compile)


def load_peer(job: Job, inputs: list[np.ndarray]) -> Peer:
    """Sets up a peer for ``inputs`` (float32 ``[batch, *shape]``, one per graph input).

    Raises:
        NotInstalled: Its package is missing.
        Refused: Its package cannot run the model.
    """
    return _guarded(job.name, lambda: KINDS[job.name].load(job, inputs))


def make_peer(
    name: str,
    graph: Graph,
    inputs: Sequence[np.ndarray],
    threads: int,
    *,
    torch_compile: bool = False,
    folder: Path | None = None,
) -> Peer:
    """Both steps at once; the file is kept only if there is a ``folder`` for it.

    Raises:
        NotInstalled: Its package is missing.
        Refused: Its package cannot run the model.
    """
    arrays = list(inputs)
    if folder is None:
        with tempfile.TemporaryDirectory() as name_of_folder:
            return make_peer(
                name,
                graph,
                arrays,
                threads,
                torch_compile=torch_compile,
                folder=Path(name_of_folder),
            )
    job = convert_peer(
        name, graph, len(arrays[0]), folder, threads=threads, torch_compile=torch_compile
    )
    return load_peer(job, arrays)


def _guarded(name: str, action: Callable):
    """A missing package and a refusal, each as one kind of error; our own errors as they are."""
    try:
        return action()
    except ImportError as error:
        package = KINDS[name].package
        raise NotInstalled(f"not installed (pip install {package}): {error}") from error
    except (Error, MemoryError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise Refused(f"cannot run this model ({type(error).__name__}: {text[:200]})") from error
