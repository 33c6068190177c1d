"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kernelprune.benchmarking.onnx_model import write_onnx
from kernelprune.benchmarking.peers.base import Job, Outputs, Peer
from kernelprune.graph.ir import Graph


def convert(graph: Graph, batch: int, path: Path) -> Path:
    """An ONNX file."""
    import onnxruntime  # noqa: F401 -- a missing package is noticed here

    return write_onnx(graph, batch, path.with_name(f"{path.name}.onnx"))


def load(job: Job, inputs: list[np.ndarray]) -> Peer:
    """All graph optimisations, one session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(job.path, options, providers=["CPUExecutionProvider"])
    feed = dict(zip(job.inputs, inputs, strict=True))
    names = list(job.outputs)

    def call() -> Outputs:
        return session.run(names, feed)

    return Peer("onnxruntime", "CPU, all optimisations", call, call, job)
