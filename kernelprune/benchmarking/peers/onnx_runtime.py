"""ONNX Runtime on the CPU, in float32 and in int8."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kernelprune.benchmarking.peers.base import Job, Outputs, Peer, quick_time
from kernelprune.files import write_bytes
from kernelprune.frontends.onnx import write_onnx
from kernelprune.graph.ir import Graph

# How a quantised model is written. Which is faster depends on the network and on the processor.
_FORMATS = ("QOperator", "QDQ")


def convert(graph: Graph, batch: int, path: Path) -> Path:
    """An ONNX file."""
    import onnxruntime  # noqa: F401 -- a missing package is noticed here

    return write_onnx(graph, batch, path.with_name(f"{path.name}.onnx"))


def convert_int8(graph: Graph, batch: int, path: Path, images: list[np.ndarray]) -> Path:
    """A folder with one file of each format: activations u8, weights s8 with a scale for each
    channel. That is done at one image, so that a few images are enough for any batch size."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path.mkdir(exist_ok=True)
    single = write_onnx(graph, 1, path / "float32.onnx")
    names = [value.name for value in graph.inputs]
    with _without_advice():
        quant_pre_process(single, path / "prepared.onnx", skip_symbolic_shape=True)
        for name in _FORMATS:
            target = path / f"{name}.onnx"
            quantization.quantize_static(
                path / "prepared.onnx",
                target,
                _Images(names, images),
                quant_format=quantization.QuantFormat[name],
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
            )
            model = onnx.load(target)
            for value in (*model.graph.input, *model.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = batch
            del model.graph.value_info[:]  # shapes for one image
            write_bytes(target, model.SerializeToString(), "the ONNX file")
    return path


class _Images:
    """What ONNX Runtime takes as a reader of calibration data: one image after another."""

    def __init__(self, names: list[str], images: list[np.ndarray]) -> None:
        self._feeds = iter(
            {name: each[i : i + 1] for name, each in zip(names, images, strict=True)}
            for i in range(len(images[0]))
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def load(job: Job, inputs: list[np.ndarray]) -> Peer:
    """All graph optimisations, one session."""
    session = _session(job.path, job.threads)
    feed = dict(zip(job.inputs, inputs, strict=True))
    names = list(job.outputs)

    def call() -> Outputs:
        return session.run(names, feed)

    return Peer(job.name, "CPU, all optimisations", call, call, job)


def load_int8(job: Job, inputs: list[np.ndarray]) -> Peer:
    """The faster of the two formats by a short measurement."""
    formats = [job.mode] if job.mode else _FORMATS
    peers = {
        name: load(dataclasses.replace(job, path=str(Path(job.path) / f"{name}.onnx")), inputs)
        for name in formats
    }
    times = {name: quick_time(peer.call) for name, peer in peers.items()} if not job.mode else {}
    best = min(peers, key=lambda name: times.get(name, 0.0))
    return dataclasses.replace(
        peers[best],
        mode=f"U8S8 per channel, {best}",
        job=dataclasses.replace(job, mode=best),
    )


def _session(path: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@contextmanager
def _without_advice() -> Iterator[None]:
    """The quantiser logs advice through Python's root logger."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
