"""What a file may not say of operators of version 2: parameters out of bounds, shapes that do not
fit, tensors of another size. Each with the words that tell the user."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graph.ops.op_cases import CASES, Case

from kernelprune.errors import Error, FormatError
from kernelprune.graph.ops import OPS
from kernelprune.graph.validate import check_graph

# op, position of its case in the table of this op, parameters that change, what the error says.
PARAMETERS: list[tuple[str, int, dict[str, Any], str]] = [
    ("unary", 0, {"function": "relu"}, "function is not one of"),
    ("unary", 0, {"alpha": float("nan")}, "not a finite number"),
    ("unary", 0, {"beta": True}, "not a finite number"),
    ("unary", 1, {"beta": 1.0}, "beta is not 0, but clamp_min has no such number"),
    ("unary", 6, {"alpha": 0.5}, "alpha is not 0, but selu"),
    ("unary", 5, {"alpha": 0.0}, "alpha is 0, by which celu divides"),
    ("unary", 11, {"alpha": 0}, "alpha is 0, by which softplus divides"),
    ("binary", 0, {"function": "matmul"}, "function is not one of"),
    ("slice", 0, {"axis": 3}, "not an axis"),
    ("slice", 0, {"start": 7}, "start 7 is not below stop 7"),
    ("slice", 0, {"stop": 9}, "no entries 2 to 9"),
    ("slice", 0, {"start": -1}, "outside"),
    ("slice", 0, {"step": 0}, "outside"),
    ("permute", 0, {"axes": [0, 0, 2]}, "do not name every axis once"),
    ("permute", 0, {"axes": [0, 1]}, "not a list of 3 integers"),
    ("permute", 0, {"axes": [0, 1, 4]}, "outside"),
    ("gather", 0, {"axis": 1}, "declares the shape"),
    ("pad", 0, {"before": [0, 1]}, "not a list of 3 integers"),
    ("pad", 0, {"before": [0, -1, 0]}, "outside"),
    ("pad", 0, {"before": [0, 1 << 21, 0]}, "outside"),
    ("pad", 3, {"value": 1.0}, "value is not 0, but the mode is reflect"),
    ("pad", 3, {"before": [0, 4, 0]}, "padding of 4 in mode reflect on a side of 4"),
    ("pad", 5, {"before": [0, 5, 0]}, "padding of 5 in mode circular on a side of 4"),
    ("resize", 0, {"align_corners": True}, "align_corners is set"),
    ("resize", 0, {"align_corners": 0}, "not true or false"),
    ("resize", 0, {"scale": [2]}, "not a list of 2 numbers"),
    ("resize", 0, {"scale": [-1, 1]}, "outside"),
    ("resize", 0, {"scale": [1e-9, 1]}, "makes a map of"),
    ("resize", 0, {"scale": [float("inf"), 1]}, "finite"),
    ("adaptive_avg_pool2d", 0, {"size": [0, 1]}, "outside"),
    ("depth_to_space", 0, {"block": 3}, "12 channels are not blocks of 9"),
    ("depth_to_space", 0, {"block": 1}, "outside"),
    ("space_to_depth", 0, {"block": 4}, "4x6 is not blocks of 4x4"),
    ("group_norm", 0, {"groups": 4}, "6 channels are not 4 equal groups"),
    ("group_norm", 0, {"groups": 0}, "outside"),
    ("group_norm", 0, {"eps": -1.0}, "outside"),
    ("layer_norm", 0, {"axis": 1}, "scale has shape"),
    ("layer_norm", 0, {"eps": -1e-9}, "outside"),
    ("l2_normalize", 0, {"axis": -1}, "not an axis"),
    ("reduce", 0, {"axes": [2, 1]}, "not ascending"),
    ("reduce", 0, {"axes": [1, 1]}, "not ascending"),
    ("reduce", 0, {"axes": [3]}, "has no axis 3"),
    ("reduce", 0, {"axes": []}, "not a list of 1 to 4 integers"),
    ("reduce", 0, {"function": "prod"}, "function is not one of"),
    ("argmax", 0, {"axis": 5}, "not an axis"),
    ("matmul", 0, {"transpose_b": True}, "multiplies rows of 4 with columns of 5"),
    ("matmul", 0, {"transpose_a": 1}, "not true or false"),
    ("log_softmax", 0, {"axis": 3}, "not an axis"),
]


@pytest.mark.parametrize("row", PARAMETERS, ids=lambda row: f"{row[0]}-{row[2]}")
def test_parameters(row: tuple[str, int, dict[str, Any], str]) -> None:
    """If this fails, a hostile file reaches the engine, or the user is not told what is wrong."""
    op, position, changed, said = row
    graph = [case for case in CASES if case.op == op][position].graph()
    graph.nodes[0].params.update(changed)
    with pytest.raises(FormatError, match=said):
        check_graph(graph)


SHAPES: list[tuple[str, list[tuple[int, ...]], dict[str, Any], tuple[int, ...], str]] = [
    ("binary", [(3, 4), (3, 5)], {"function": "add"}, (), "do not go together"),
    ("binary", [(3, 4), (4,)], {"function": "add"}, (), "do not go together"),
    ("reshape", [(3, 4)], {}, (11,), "not as many elements"),
    ("reshape", [(3, 4)], {}, (), "not as many elements"),
    ("expand", [(3, 4)], {}, (6, 4), "does not expand"),
    ("expand", [(1, 4)], {}, (6, 4, 1), "does not expand"),
    ("gather", [(3, 4)], {"axis": 0}, (2,), "gathers"),
    ("constant", [], {}, (), "declares no shape"),
    ("slice", [(3,)], {"axis": 1, "start": 0, "stop": 1, "step": 1}, (), "has no entries"),
    ("permute", [(3, 4)], {"axes": [0, 1, 2]}, (), "has not the axes"),
    (
        "resize", [(3, 4)], {"mode": "nearest", "align_corners": False, "scale": [2, 2]}, (),
        "not a map",
    ),
    (
        "resize", [(3, 4, 4)], {"mode": "nearest", "align_corners": False, "scale": [0, 2]}, (),
        "no map",
    ),
    ("adaptive_max_pool2d", [(3, 4)], {"size": [1, 1]}, (), "not a map"),
    ("depth_to_space", [(4,)], {"block": 2}, (), "not a map"),
    ("matmul", [(3,), (3,)], {"transpose_a": False, "transpose_b": False}, (), "rank of 2 to 4"),
    ("matmul", [(2, 3, 4), (4, 5)], {"transpose_a": False, "transpose_b": False}, (), "rank of 2"),
    (
        "matmul", [(2, 3, 4), (3, 4, 5)], {"transpose_a": False, "transpose_b": False}, (),
        "do not go together",
    ),
]  # fmt: skip


@pytest.mark.parametrize("position", range(len(SHAPES)))
def test_shapes(position: int) -> None:
    """If this fails, an op computes a shape for inputs that it cannot take."""
    op, shapes, params, declared, said = SHAPES[position]
    with pytest.raises(Error, match=said):
        OPS[op].infer(shapes, params, declared)


WITH_TENSORS = {case.op: case for case in CASES if case.tensors}


@pytest.mark.parametrize("case", WITH_TENSORS.values(), ids=lambda case: case.op)
def test_tensors(case: Case) -> None:
    """If this fails, a file's tensors may be missing, too small, or not finite."""
    for role, array in case.tensors.items():
        for wrong in (
            None,
            array[:-1],
            array.astype(np.int64 if array.dtype != np.uint32 else float),
        ):
            graph = case.graph()
            if wrong is None:
                del graph.nodes[0].tensors[role]
            else:
                graph.nodes[0].tensors[role] = wrong
            with pytest.raises(FormatError, match=f"{role}|tensors"):
                check_graph(graph)


def test_an_index_stays_inside_the_axis() -> None:
    """If this fails, a file makes the engine read beyond a value."""
    graph = WITH_TENSORS["gather"].graph()
    side = graph.inputs[0].shape[graph.nodes[0].params["axis"]]
    graph.nodes[0].tensors["index"] = np.full_like(graph.nodes[0].tensors["index"], side)
    with pytest.raises(FormatError, match=f"index holds an entry past {side - 1}"):
        check_graph(graph)


def test_multiply_adds_of_products() -> None:
    """If this fails, the cost of attention is not counted."""
    for case in (case for case in CASES if case.op == "matmul"):
        graph = case.graph()
        depth = case.shapes[0][-2 if case.params["transpose_a"] else -1]
        assert graph.macs() == np.prod(graph.nodes[0].shape) * depth
