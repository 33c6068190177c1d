"""Operators that move values: every entry of the output is an entry of the input, or a number."""

from __future__ import annotations

import numpy as np
import pytest
from op_files import OpFile, check_exact

from kernelprune import _core

# Sides around the widths of vectors.
SIDES = (1, 3, 7, 8, 9, 15, 16, 17, 33)


def _slices() -> list[OpFile]:
    files = [
        OpFile("slice", [[c, 3, 5]], [c - 1, 3, 5],
               {"axis": 0, "start": 1, "stop": c, "step": 1}) for c in (2, 9)
    ]  # fmt: skip
    for side in SIDES[1:]:
        params = {"axis": 2, "start": 1, "stop": side, "step": 2}
        files.append(OpFile("slice", [[3, 2, side]], [3, 2, (side - 1 + 1) // 2], params))
    return [
        *files,
        OpFile("slice", [[9, 4, 4]], [3, 4, 4], {"axis": 0, "start": 2, "stop": 9, "step": 3}),
        OpFile("slice", [[5, 6, 7]], [5, 2, 7], {"axis": 1, "start": 3, "stop": 5, "step": 1}),
        OpFile("slice", [[20]], [7], {"axis": 0, "start": 6, "stop": 20, "step": 2}),
        OpFile("slice", [[4, 9]], [4, 5], {"axis": 1, "start": 4, "stop": 9, "step": 1}),
        OpFile("slice", [[2, 3, 4, 5]], [2, 3, 4, 2],
               {"axis": 3, "start": 0, "stop": 4, "step": 2}),
    ]  # fmt: skip


def _permutes() -> list[OpFile]:
    files = []
    for shape, axes in [
        ((3, 5, 7), (1, 2, 0)), ((3, 5, 7), (2, 0, 1)), ((17, 4, 16), (0, 2, 1)),
        ((3, 33), (1, 0)), ((2, 3, 4, 5), (3, 1, 0, 2)), ((2, 3, 4, 5), (0, 2, 1, 3)),
        ((9,), (0,)), ((1, 8, 1), (1, 0, 2)),
    ]:  # fmt: skip
        files.append(OpFile("permute", [shape], [shape[a] for a in axes], {"axes": list(axes)}))
    return files


def _pads() -> list[OpFile]:
    def pad(shape: list[int], before: list[int], after: list[int], mode: str, value: float):
        out = [b + s + a for b, s, a in zip(before, shape, after, strict=True)]
        params = {"before": before, "after": after, "mode": mode, "value": value}
        return OpFile("pad", [shape], out, params)

    maps = [
        pad([3, 4, side], [0, 1, 2], [0, 2, 1], mode, 0)
        for side in SIDES[1:]
        for mode in ("constant", "reflect", "replicate", "circular")
    ]
    return [
        *maps,
        pad([3, 4, 5], [2, 0, 0], [1, 0, 3], "constant", -1.5),
        pad([7], [3], [9], "constant", 2),
        pad([2, 3, 4, 5], [0, 1, 0, 2], [1, 0, 2, 0], "replicate", 0),
        pad([5, 1, 1], [4, 0, 0], [4, 0, 0], "reflect", 0),
    ]


def _others() -> list[OpFile]:
    rng = np.random.default_rng(3)
    files = []
    for shape, axis, count in [((12, 3, 5), 0, 12), ((7, 9), 1, 4), ((30,), 0, 17),
                               ((4, 5, 6), 2, 9), ((2, 3, 4, 5), 3, 7)]:  # fmt: skip
        out = [count if i == axis else side for i, side in enumerate(shape)]
        index = rng.integers(0, shape[axis], count).astype("<u4")
        files.append(OpFile("gather", [shape], out, {"axis": axis}, {"index": index}))
    for shape, out in [((3, 1, 1), (3, 5, 7)), ((1, 4, 17), (6, 4, 17)), ((1, 9), (4, 9)),
                       ((1,), (33,)), ((2, 1, 4, 1), (2, 3, 4, 5)),
                       ((1, 1, 8), (1, 3, 8))]:  # fmt: skip
        files.append(OpFile("expand", [shape], list(out)))
    for shape, out in [((3, 5, 7), (15, 7)), ((3, 5, 7), (7, 15)), ((4, 4, 4), (64,)),
                       ((105,), (3, 5, 7)), ((3, 35), (3, 7, 5)), ((2, 3, 4, 5), (6, 20)),
                       ((24, 9), (2, 3, 4, 9)), ((6, 4, 4), (2, 3, 4, 4)),
                       ((5, 9, 2), (9, 5, 2))]:  # fmt: skip
        files.append(OpFile("reshape", [shape], list(out)))
    for channels, height, width, block in [(4, 3, 5, 2), (18, 2, 9, 3), (16, 4, 16, 4)]:
        deep, wide = [channels * 4, height, width], [channels, height * 2, width * 2]
        files.append(OpFile("depth_to_space", [deep], wide, {"block": 2}))
        whole = [channels, height * block, width * block]
        deep = [channels * block**2, height, width]
        files.append(OpFile("space_to_depth", [whole], deep, {"block": block}))
    for shapes, axis in [([(3, 4, 5), (2, 4, 5)], 0), ([(3, 4, 5), (3, 1, 5), (3, 7, 5)], 1),
                         ([(3, 4, 5), (3, 4, 16)], 2), ([(9,), (8,)], 0), ([(5, 3), (5, 9)], 1),
                         ([(2, 3, 4, 5), (2, 3, 4, 1)], 3),
                         ([(2, 3, 4, 5), (2, 3, 2, 5)], 2)]:  # fmt: skip
        out = [sum(s[i] for s in shapes) if i == axis else side for i, side in enumerate(shapes[0])]
        files.append(OpFile("concat", shapes, out, {"axis": axis}))
    return files


@pytest.mark.parametrize("file", [*_slices(), *_permutes(), *_pads(), *_others()], ids=str)
def test_moves(file: OpFile) -> None:
    """If this fails, an operator takes an entry from another place, or leaves a gap."""
    check_exact(file)


def test_slices_share_memory() -> None:
    """If this fails, slices of channels are copied: a split costs a step and memory, where the
    parts of a value are where they are."""
    file = OpFile("slice", [[64, 8, 8]], [32, 8, 8],
                  {"axis": 0, "start": 32, "stop": 64, "step": 1})  # fmt: skip
    engine = _core.Engine.load_bytes(file.model().to_bytes(), "slice", 1, "portable", 1)
    assert [layer.kernel for layer in engine.layers(1)] == [""]


def test_a_slice_is_not_written_over() -> None:
    """If this fails, the sum of one half and something else is written over memory in which the
    other half, which is needed later, lies too."""
    model = OpFile("slice", [[4, 3, 3]], [2, 3, 3],
                   {"axis": 0, "start": 0, "stop": 2, "step": 1}).model()  # fmt: skip
    first = {**model.graph["nodes"][0], "name": "low", "output": "low"}
    second = {**first, "name": "high", "output": "high", "start": 2, "stop": 4}
    twice = {"op": "activation", "name": "relu", "inputs": ["low"], "output": "relu",
             "shape": [2, 3, 3], "activation": "relu"}  # fmt: skip
    total = {"op": "concat", "name": "all", "inputs": ["relu", "high", "low"], "output": "all",
             "shape": [6, 3, 3]}  # fmt: skip
    model.graph.update(nodes=[first, second, twice, total], outputs=["all"])
    x = np.random.default_rng(0).standard_normal((3, 4, 3, 3)).astype(np.float32)
    engine = _core.Engine.load_bytes(model.to_bytes(), "halves", 1, "portable", 4)
    expected = np.concatenate([np.maximum(x[:, :2], 0), x[:, 2:], x[:, :2]], 1)
    assert np.array_equal(engine.run([x])[0], expected)
