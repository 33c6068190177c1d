"""The engines to compare with, one file each, in float32, bfloat16 or int8.

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
from kernelprune.benchmarking.peers.base import (
    TOLERANCES,
    Job,
    NotInstalled,
    Outputs,
    Peer,
    Refused,
    random_inputs,
)
from kernelprune.errors import EXTRAS, Error, to_install
from kernelprune.frontends.onnx import output_names
from kernelprune.graph.ir import Graph

__all__ = [
    "KINDS",
    "TOLERANCES",
    "Job",
    "NotInstalled",
    "Outputs",
    "Peer",
    "Refused",
    "convert_peer",
    "load_peer",
    "make_peer",
    "random_inputs",
]

# Images that bytes are fitted to, unless some are given. Time does not depend on them.
_CALIBRATION_IMAGES = 4
_CALIBRATION_SEED = 1


@dataclass(frozen=True)
class Kind:
    """How to get from a graph to a peer that is ready to run.

    Attributes:
        package: What it imports.
        convert: Writes a float32 graph as the peer's own file for a batch size; returns its path.
            Those that compute in int8 take float32 images ``[count, *shape]``, for each input of
            the graph, as a fourth argument.
        load: The file to a peer, ready to run on these inputs.
        sparse: It profits from dropped kernels: it runs the pruned file, not the dense one.
        precision: What it computes in, of ``TOLERANCES``.
    """

    package: str
    convert: Callable[..., Path]
    load: Callable[[Job, list[np.ndarray]], Peer]
    sparse: bool = False
    precision: str = "float32"

    @property
    def tolerance(self) -> float:
        """How far its outputs may be from those of float32."""
        return TOLERANCES[self.precision]


KINDS = {
    "torch": Kind("torch", pytorch.convert, pytorch.load),
    "onnxruntime": Kind("onnxruntime", onnx_runtime.convert, onnx_runtime.load),
    "openvino": Kind("openvino", openvino_cpu.convert, openvino_cpu.load),
    "mnn": Kind("MNN", mnn.convert, mnn.load),
    "mnn-sparse": Kind("MNN", mnn.convert_sparse, mnn.load, sparse=True),
    "openvino-bf16": Kind(
        "openvino", openvino_cpu.convert, openvino_cpu.load_bf16, precision="bfloat16"
    ),
    "openvino-int8": Kind(
        "openvino", openvino_cpu.convert_int8, openvino_cpu.load_int8, precision="int8"
    ),
    "onnxruntime-int8": Kind(
        "onnxruntime", onnx_runtime.convert_int8, onnx_runtime.load_int8, precision="int8"
    ),
    "mnn-int8": Kind("MNN", mnn.convert_int8, mnn.load, precision="int8"),
}


def convert_peer(
    name: str,
    graph: Graph,
    batch: int,
    folder: Path,
    *,
    threads: int = 1,
    torch_compile: bool = False,
    calibration: Sequence[np.ndarray] | None = None,
) -> Job:
    """Writes the peer's own model file into ``folder``.

    ``calibration``: images that int8 peers are fitted to, float32 ``[count, *shape]`` for each
    input of the graph; None takes a few random ones.

    Raises:
        NotInstalled: Its package is missing.
        Refused: Its package cannot hold this model.
    """
    kind, path = KINDS[name], folder / f"{name}-{batch}"
    images: list[list[np.ndarray]] = []
    if kind.precision == "int8":
        shapes = [value.shape for value in graph.inputs]
        given = calibration or random_inputs(shapes, _CALIBRATION_IMAGES, _CALIBRATION_SEED)
        images = [[np.ascontiguousarray(each, np.float32) for each in given]]
    path = _guarded(name, lambda: kind.convert(graph, batch, path, *images))
    inputs = tuple(value.name for value in graph.inputs)
    return Job(name, str(path), inputs, tuple(output_names(graph)), threads, torch_compile)


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
    calibration: Sequence[np.ndarray] | None = None,
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
                calibration=calibration,
                folder=Path(name_of_folder),
            )
    job = convert_peer(
        name,
        graph,
        len(arrays[0]),
        folder,
        threads=threads,
        torch_compile=torch_compile,
        calibration=calibration,
    )
    return load_peer(job, arrays)


def _guarded(name: str, action: Callable):
    """A missing package and a refusal, each as one kind of error; our own errors as they are."""
    try:
        return action()
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:  # a module inside of the peer's package
            package = KINDS[name].package
        hint = f"pip install {to_install(package)}"
        raise NotInstalled(f"not installed ({hint}): {error}") from error
    except (Error, MemoryError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise Refused(f"cannot run this model ({type(error).__name__}: {text[:200]})") from error
