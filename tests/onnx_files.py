"""Small ONNX files for tests, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def constant(array: Any, name: str) -> Any:
    kind = np.float32 if np.asarray(array).dtype == np.float64 else None
    return numpy_helper.from_array(np.asarray(array, kind), name)


def model_of(
    nodes: Sequence[Any],
    inputs: dict[str, Sequence[int | str]],
    outputs: Sequence[str] = ("y",),
    constants: Sequence[Any] = (),
    opset: int = 17,
) -> onnx.ModelProto:
    """``inputs``: shapes with the batch."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(n, FLOAT, list(shape)) for n, shape in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        list(constants),
    )
    # The newest that every runtime in the tests takes.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def by_runtime(model: onnx.ModelProto | Path, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs that ONNX Runtime computes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    content = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return list(session.run(None, dict(zip(names, feeds, strict=True))))
