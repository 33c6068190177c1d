"""The dense engines to compare with: torch, ONNX Runtime, OpenVINO. All float32.

Each is set up once per batch size, as its own guide says it is fastest, with its threads pinned to
the number asked for, and then run on the same input. A peer that is not installed is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernelprune.benchmarking.onnx_model import to_onnx
from kernelprune.errors import Error
from kernelprune.format.graph import Graph

Outputs = list[np.ndarray]


@dataclass(frozen=True)
class Peer:
    """A peer that is ready to run.

    Attributes:
        name: Such as ``"openvino"``.
        mode: The variant that is timed, such as ``"channels_last"``.
        call: Runs once on the input that it was made with.
        outputs: Runs once and returns copies of the outputs.
    """

    name: str
    mode: str
    call: Callable[[], object]
    outputs: Callable[[], Outputs]


class NotInstalled(Error):
    """A peer is missing here; the message says what to install."""


def make_peer(name: str, graph: Graph, inputs: list[np.ndarray], threads: int) -> Peer:
    """Sets up one peer for ``inputs`` (float32 ``[batch, *shape]``, one per graph input).

    Raises:
        NotInstalled: Its package is missing.
        Error: Its package refuses the model.
    """
    try:
        return _MAKERS[name](graph, inputs, threads)
    except ImportError as error:
        raise NotInstalled(f"not installed (pip install {name}): {error}") from error


def _make_torch(graph: Graph, inputs: list[np.ndarray], threads: int) -> Peer:
    """Eager, in both memory orders; the faster one is the peer."""
    import torch

    from kernelprune.capture import to_torch

    torch.set_num_threads(threads)
    modes = {}
    for mode in ("contiguous", "channels_last"):
        module = to_torch(graph)
        tensors = [torch.from_numpy(array) for array in inputs]
        if mode == "channels_last":
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            tensors = [
                t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t
                for t in tensors
            ]

        def call(module: Any = module, tensors: Any = tensors) -> Any:
            torch.set_num_threads(threads)
            with torch.inference_mode():
                return module(*tensors)

        modes[mode] = call
    best = min(modes, key=lambda mode: _quick_time(modes[mode]))

    def outputs() -> Outputs:
        result = modes[best]()
        parts = result if isinstance(result, tuple) else (result,)
        return [part.contiguous().numpy().copy() for part in parts]

    return Peer("torch", f"eager, {best}", modes[best], outputs)


def _quick_time(call: Callable[[], object], seconds: float = 0.3) -> float:
    """The fastest of the calls that fit in about ``seconds``, after one to warm up."""
    call()
    best, ends = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < ends:
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best


def _make_onnxruntime(graph: Graph, inputs: list[np.ndarray], threads: int) -> Peer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    model = to_onnx(graph, len(inputs[0])).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {value.name: array for value, array in zip(graph.inputs, inputs, strict=True)}
    names = list(graph.outputs)

    def call() -> Outputs:
        return session.run(names, feed)

    return Peer("onnxruntime", "CPU, all optimisations", call, call)


def _make_openvino(graph: Graph, inputs: list[np.ndarray], threads: int) -> Peer:
    import openvino

    core = openvino.Core()
    model = core.read_model(model=to_onnx(graph, len(inputs[0])).SerializeToString(), weights=b"")
    # On processors with bfloat16 it would compute in that by default: not the same work.
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        },
    )
    request = compiled.create_infer_request()
    for position, array in enumerate(inputs):
        request.set_input_tensor(position, openvino.Tensor(array, shared_memory=True))

    def outputs() -> Outputs:
        request.infer()
        count = len(graph.outputs)
        return [np.array(request.get_output_tensor(position).data) for position in range(count)]

    return Peer("openvino", "latency hint", request.infer, outputs)


_MAKERS: dict[str, Callable[[Graph, list[np.ndarray], int], Peer]] = {
    "torch": _make_torch,
    "onnxruntime": _make_onnxruntime,
    "openvino": _make_openvino,
}
