"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kernelprune.benchmarking.onnx_model import write_onnx
from kernelprune.benchmarking.peers.base import Job, Outputs, Peer
from kernelprune.graph.ir import Graph


def convert(graph: Graph, batch: int, path: Path) -> Path:
    """An ONNX file, which OpenVINO reads itself."""
    import openvino  # noqa: F401 -- a missing package is noticed here

    return write_onnx(graph, batch, path.with_name(f"{path.name}.onnx"))


def load(job: Job, inputs: list[np.ndarray]) -> Peer:
    """One stream, latency hint."""
    import openvino

    core = openvino.Core()
    # On processors with bfloat16 it would compute in that by default: not the same work.
    compiled = core.compile_model(
        core.read_model(job.path),
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": job.threads,
            "NUM_STREAMS": 1,
        },
    )
    request = compiled.create_infer_request()
    for position, array in enumerate(inputs):
        request.set_input_tensor(position, openvino.Tensor(array, shared_memory=True))

    def outputs() -> Outputs:
        request.infer()
        count = len(job.outputs)
        return [np.array(request.get_output_tensor(position).data) for position in range(count)]

    return Peer("openvino", "latency hint", request.infer, outputs, job)
