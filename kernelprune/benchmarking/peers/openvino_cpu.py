"""OpenVINO on the CPU: in float32, in bfloat16, and in int8 after NNCF's quantisation."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from kernelprune.benchmarking.peers.base import Job, NotInstalled, Outputs, Peer, Refused
from kernelprune.errors import to_install
from kernelprune.frontends.onnx import write_onnx
from kernelprune.graph.ir import Graph


def convert(graph: Graph, batch: int, path: Path) -> Path:
    """An ONNX file, which OpenVINO reads itself."""
    import openvino  # noqa: F401 -- a missing package is noticed here

    return write_onnx(graph, batch, path.with_name(f"{path.name}.onnx"))


def convert_int8(graph: Graph, batch: int, path: Path, images: list[np.ndarray]) -> Path:
    """A model of OpenVINO's own, quantised by NNCF with its default options. That is done at one
    image, so that a few images are enough for any batch size."""
    import openvino

    single = write_onnx(graph, 1, path.with_name(f"{path.name}.onnx"))
    model = openvino.Core().read_model(single)
    names = [value.name for value in graph.inputs]
    samples = [
        {name: each[i : i + 1] for name, each in zip(names, images, strict=True)}
        for i in range(len(images[0]))
    ]
    with _quiet():
        try:
            import nncf
        except ImportError as error:
            raise NotInstalled(
                f"not installed (pip install {to_install('nncf')}): {error}"
            ) from error

        found = nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples))
    found.reshape({value.name: [batch, *value.shape] for value in graph.inputs})
    target = path.with_name(f"{path.name}.xml")
    openvino.save_model(found, str(target), compress_to_fp16=False)
    return target


def load(job: Job, inputs: list[np.ndarray]) -> Peer:
    """In float32. On processors with bfloat16 it would compute in that by default."""
    compiled = _compiled(job, INFERENCE_PRECISION_HINT="f32")
    return _peer(compiled, job, inputs, "latency hint")


def load_bf16(job: Job, inputs: list[np.ndarray]) -> Peer:
    """As it is by default, which must be bfloat16. Raises Refused on processors without it."""
    compiled = _compiled(job)
    used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if used != "bf16":
        raise Refused(f"on this processor it computes in {used}, not in bfloat16")
    return _peer(compiled, job, inputs, "default precision, bfloat16")


def load_int8(job: Job, inputs: list[np.ndarray]) -> Peer:
    """What NNCF left in float32 is computed in the default precision."""
    return _peer(_compiled(job), job, inputs, "NNCF, U8S8 per channel")


def _compiled(job: Job, **settings: Any) -> Any:
    """One stream, latency hint."""
    import openvino

    core = openvino.Core()
    return core.compile_model(
        core.read_model(job.path),
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": job.threads,
            "NUM_STREAMS": 1,
            **settings,
        },
    )


def _peer(compiled: Any, job: Job, inputs: list[np.ndarray], mode: str) -> Peer:
    import openvino

    request = compiled.create_infer_request()
    for position, array in enumerate(inputs):
        request.set_input_tensor(position, openvino.Tensor(array, shared_memory=True))

    def outputs() -> Outputs:
        request.infer()
        count = len(job.outputs)
        return [
            np.array(request.get_output_tensor(position).data, np.float32)
            for position in range(count)
        ]

    return Peer(job.name, mode, request.infer, outputs, job)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, and no report of usage: NNCF sends one to the network unless this variable
    is there when it is imported."""
    name = "NNCF_CI"
    before, logger = os.environ.get(name), logging.getLogger("nncf")
    os.environ[name] = "1"
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            level = logger.level
            logger.setLevel(logging.ERROR)
            try:
                yield
            finally:
                logger.setLevel(level)
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
