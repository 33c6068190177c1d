"""Every converter on graphs of a node or a few, in several opsets, against ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from onnx_files import by_runtime, constant, model_of, saved

from kernelprune.frontends.onnx import read_onnx
from kernelprune.frontends.onnx.converters import CONVERTERS
from kernelprune.frontends.torch import to_torch

MAP, ROW, VECTOR = (4, 6, 5), (4, 7), (6,)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@dataclass
class Case:
    """A node of ``op`` on one input of ``shape`` per image and ``more`` constants."""

    op: str
    shape: tuple[int, ...] = MAP
    more: list[Any] = field(default_factory=list)
    opset: int = 17
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    positive: bool = False
    constant_first: bool = False

    def model(self, batch: int | str) -> Any:
        names = [f"c{place}" if array is not None else "" for place, array in enumerate(self.more)]
        inputs = [*names, "x"] if self.constant_first else ["x", *names]
        outputs = [f"y{place}" for place in range(self.outputs)]
        node = helper.make_node(self.op, inputs, outputs, name="node", **self.attributes)
        constants = [
            constant(array, name)
            for array, name in zip(self.more, names, strict=True)
            if array is not None
        ]
        return model_of([node], {"x": (batch, *self.shape)}, outputs, constants, self.opset)


def case(op: str, shape: tuple[int, ...] = MAP, *more: Any, opset: int = 17, **rest: Any) -> Case:
    known = {
        name: rest.pop(name) for name in ("outputs", "positive", "constant_first") if name in rest
    }
    return Case(op, shape, list(more), opset, rest, **known)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


W33, BIAS = numbers(6, 4, 3, 3), numbers(6)
CHANNELS = [numbers(4, seed=s) for s in (1, 2, 3)] + [np.abs(numbers(4, seed=4)) + 0.1]
CASES = [
    # ---------------------------------------------------------------- layers
    case("Conv", MAP, W33, BIAS, opset=9, pads=[1, 0, 2, 1], strides=[2, 1]),
    case("Conv", MAP, W33, opset=22, auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", MAP, W33, auto_pad="SAME_LOWER", strides=[2, 3]),
    case("Conv", MAP, W33, auto_pad="VALID", dilations=[2, 2]),
    case("Conv", MAP, numbers(4, 1, 3, 3), group=4, pads=[4, 4, 4, 4]),
    case("Conv", ROW, numbers(6, 2, 3), BIAS, group=2, pads=[1, 1], strides=[2]),
    case("Conv", ROW, numbers(6, 4, 3), auto_pad="SAME_UPPER"),
    case("ConvTranspose", MAP, numbers(4, 3, 3, 3), numbers(3), strides=[2, 2],
         pads=[1, 1, 1, 1], output_padding=[1, 1]),
    case("ConvTranspose", MAP, numbers(4, 2, 2, 2), group=2, strides=[2, 2], opset=9),
    case("ConvTranspose", MAP, numbers(4, 3, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    case("ConvTranspose", MAP, numbers(4, 3, 3, 3), auto_pad="SAME_LOWER", strides=[2, 2]),
    case("ConvTranspose", MAP, numbers(4, 3, 4, 3), output_shape=[12, 11], strides=[2, 2]),
    case("ConvTranspose", MAP, numbers(4, 3, 3, 2), dilations=[2, 1], pads=[0, 1, 1, 0]),
    case("ConvTranspose", ROW, numbers(4, 3, 4), strides=[3], pads=[1, 0]),
    case("Gemm", VECTOR, numbers(5, 6), numbers(5), transB=1, alpha=0.5, beta=2.0),
    case("Gemm", VECTOR, numbers(6, 5), opset=11),
    case("Gemm", VECTOR, numbers(6, 5), np.float32(0.3), opset=9),
    case("MatMul", VECTOR, numbers(6, 5)),
    case("MatMul", ROW, numbers(7, 5)),
    case("MatMul", MAP, numbers(5, 3)),
    case("MatMul", MAP, numbers(4, 5, 3)),
    case("MatMul", MAP, numbers(4, 3, 6), constant_first=True),
    case("BatchNormalization", MAP, *CHANNELS, epsilon=1e-3, opset=9),
    case("BatchNormalization", ROW, *CHANNELS, opset=15),
    # ---------------------------------------------------------------- pools
    case("MaxPool", MAP, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], opset=8),
    case("MaxPool", MAP, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, opset=12),
    case("MaxPool", MAP, kernel_shape=[2, 2], dilations=[2, 2], opset=22),
    case("MaxPool", MAP, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("MaxPool", ROW, kernel_shape=[3], strides=[2], ceil_mode=1),
    case("AveragePool", MAP, kernel_shape=[3, 3], pads=[1, 1, 1, 1], opset=9),
    case("AveragePool", MAP, kernel_shape=[3, 3], pads=[1, 0, 1, 2], count_include_pad=1),
    case("AveragePool", MAP, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, opset=19),
    case("AveragePool", MAP, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    case("AveragePool", ROW, kernel_shape=[3], pads=[1, 1]),
    case("GlobalAveragePool"), case("GlobalAveragePool", ROW), case("GlobalMaxPool"),
    # ---------------------------------------------------------------- functions
    *[case(op) for op in (
        "Abs Cos Erf Exp HardSwish Neg Sigmoid Sign Sin Softplus Softsign Tanh Relu Identity"
        " Elu LeakyRelu Selu HardSigmoid Celu ThresholdedRelu Dropout"
    ).split()],
    case("Mish", opset=18),
    case("Log", positive=True), case("Sqrt", positive=True), case("Reciprocal", positive=True),
    case("Elu", alpha=0.5), case("LeakyRelu", alpha=0.3), case("Selu", alpha=1.1, gamma=0.9),
    case("HardSigmoid", alpha=0.3, beta=0.4), case("HardSigmoid", alpha=1 / 6, beta=0.5),
    case("Gelu", opset=20), case("Gelu", opset=20, approximate="tanh"),
    case("Clip", opset=9, min=-0.5, max=0.5), case("Clip", opset=7, min=0.0, max=6.0),
    case("Clip", MAP, np.float32(0.0), np.float32(6.0), opset=11),
    case("Clip", MAP, None, np.float32(0.5), opset=13), case("Clip", MAP, np.float32(0.1)),
    case("PRelu", MAP, numbers(4, 1, 1)), case("PRelu", MAP, numbers(1), opset=9),
    case("Cast", to=TensorProto.FLOAT),
    # ---------------------------------------------------------------- arithmetic
    *[case(op, MAP, array, positive=op == "Pow")
      for op in ("Add", "Sub", "Mul", "Div")
      for array in (np.float32(1.5), numbers(4, 1, 1), numbers(1, 4, 6, 5), numbers(5))],
    *[case(op, MAP, numbers(4, 1, 1), constant_first=True, positive=True)
      for op in ("Sub", "Div", "Mul")],
    case("Pow", MAP, np.float32(2.0)), case("Pow", MAP, np.float32(1.7), positive=True),
    *[case(op, MAP, numbers(4, 1, 1), numbers(1, 5)) for op in ("Max", "Min", "Sum", "Mean")],
    # ---------------------------------------------------------------- shapes
    case("Reshape", MAP, ints(1, -1)), case("Reshape", MAP, ints(0, 4, -1)),
    case("Reshape", MAP, ints(-1, 2, 2, 30)), case("Reshape", MAP, ints(1, 2, 2, 6, 5), opset=9),
    case("Flatten"), case("Flatten", axis=1, opset=9), case("Flatten", axis=-3),
    case("Squeeze", (4, 1, 1), axes=[2, 3], opset=11), case("Squeeze", (4, 1, 1), ints(-1)),
    case("Unsqueeze", ROW, axes=[2], opset=9), case("Unsqueeze", ROW, ints(1, -1)),
    case("Transpose", perm=[0, 2, 3, 1]), case("Transpose", ROW, perm=[0, 2, 1]),
    case("DepthToSpace", (8, 3, 2), blocksize=2),
    case("DepthToSpace", (8, 3, 2), blocksize=2, mode="CRD", opset=11),
    case("SpaceToDepth", (2, 4, 6), blocksize=2),
    case("Slice", axes=[1, 3], starts=[1, -3], ends=[3, 100], opset=9),
    case("Slice", MAP, ints(0, 4), ints(1 << 40, -100), ints(1, 3), ints(2, -1)),
    case("Slice", MAP, ints(1), ints(-1), ints(2), opset=11),
    case("Split", MAP, axis=1, split=[1, 3], opset=11, outputs=2),
    case("Split", MAP, ints(2, 2, 2), axis=2, outputs=3),
    case("Split", MAP, axis=1, opset=13, outputs=2),
    case("Split", MAP, axis=3, num_outputs=3, opset=18, outputs=3),
    case("Gather", MAP, ints(2, 0, -1), axis=1), case("Gather", MAP, np.int64(1), axis=2),
    case("Concat", MAP, numbers(1, 2, 6, 5), axis=1),
    case("Concat", ROW, numbers(1, 4, 1), axis=-1),
    case("Expand", (4, 1, 5), ints(1, 1, 6, 1)), case("Expand", (1, 5), ints(1, 3, 5)),
    case("Tile", (4, 1, 5), ints(1, 2, 3, 1)),
    case("Pad", pads=[0, 0, 1, 2, 0, 1, 0, 3], value=0.5, opset=9),
    case("Pad", MAP, ints(0, 0, 1, 2, 0, 0, 2, 1), mode="reflect"),
    case("Pad", MAP, ints(0, 0, 1, 2, 0, 0, 2, 1), mode="edge"),
    case("Pad", MAP, ints(1, 2), np.float32(2.0), ints(-1), opset=18),
    # ---------------------------------------------------------------- reductions and norms
    *[case(op, positive=True, axes=[1, 2], keepdims=0, opset=11) for op in (
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceSum"
        " ReduceSumSquare").split()],
    case("ReduceSum", MAP, ints(-1)), case("ReduceMean", axes=[2, 3], opset=17),
    case("ReduceMean", MAP, ints(2, 3), opset=18), case("ReduceMax", axes=[1]),
    case("ReduceSum", VECTOR, ints(1), keepdims=0),
    case("ArgMax", axis=1), case("ArgMin", axis=-1, keepdims=0),
    case("Softmax", axis=1), case("Softmax", opset=13), case("LogSoftmax", axis=2),
    case("Softmax", opset=11, axis=2), case("Softmax", VECTOR, opset=9),
    case("InstanceNormalization", MAP, *CHANNELS[:2], epsilon=1e-3),
    case("LayerNormalization", MAP, numbers(5), numbers(5)),
    case("LayerNormalization", MAP, numbers(6, 5), axis=2),
    case("GroupNormalization", MAP, numbers(4), numbers(4), num_groups=2, opset=21),
    case("LRN", size=3, alpha=0.1), case("LpNormalization", axis=1),
    # ---------------------------------------------------------------- resizing
    case("Upsample", mode="nearest", scales=[1.0, 1.0, 2.0, 3.0], opset=7),
    case("Upsample", MAP, np.float32([1, 1, 2, 2]), mode="nearest", opset=9),
    case("Resize", MAP, np.float32([1, 1, 2, 2]), mode="nearest", opset=10),
    *[case("Resize", MAP, np.float32([]), np.float32([1, 1, *scale]), opset=11, mode="nearest",
           coordinate_transformation_mode=transform, nearest_mode=rounding)
      for transform in ("asymmetric", "half_pixel", "align_corners")
      for rounding in ("floor", "round_prefer_floor", "round_prefer_ceil", "ceil")
      for scale in ((2, 2), (1.5, 0.5))],
    *[case("Resize", MAP, None, None, ints(1, 4, *size), opset=13, mode=mode,
           coordinate_transformation_mode=transform)
      for mode in ("linear", "cubic") for size in ((12, 10), (4, 7))
      for transform in ("half_pixel", "align_corners", "pytorch_half_pixel")],
    case("Resize", MAP, None, np.float32([1, 1, 1.7, 2.3]), mode="linear"),
    case("Resize", MAP, None, np.float32([2, 2]), opset=18, axes=[2, 3], mode="linear"),
    case("Resize", ROW, None, np.float32([1, 1, 2]), mode="linear"),
]  # fmt: skip


def name_of(each: Case) -> str:
    attributes = "-".join(f"{k}={v}" for k, v in each.attributes.items()).replace(" ", "")
    return f"{each.op}-{each.opset}-{len(each.shape)}-{attributes}"


def compare(model: Any, images: np.ndarray, path: Path) -> None:
    """The graph on all images at once, and ONNX Runtime on each of them."""
    graph = read_onnx(saved(model, path))
    given = [torch.from_numpy(images)]
    with torch.no_grad():
        found = to_torch(graph)(*given)
    found = [found] if isinstance(found, torch.Tensor) else list(found)
    for image, own in enumerate(zip(*found, strict=True)):
        wanted = by_runtime(model, [images[image : image + 1]])
        for have, want in zip(own, wanted, strict=True):
            assert list(want.shape) in ([1, *have.shape], [1]), (want.shape, have.shape)
            np.testing.assert_allclose(have.numpy().reshape(want.shape), want, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("each", CASES, ids=name_of)
@pytest.mark.parametrize("batch", [1, "n"])
def test_converter(each: Case, batch: int | str, tmp_path: Path) -> None:
    """If this fails, an operator computes something else than ONNX says, or the file's batch of one
    is not free."""
    images = numbers(2, *each.shape, seed=7)
    images = np.abs(images) + 0.1 if each.positive else images
    compare(each.model(batch), images, tmp_path / "net.onnx")


def test_all_converters_are_tested() -> None:
    """If this fails, a converter has no case above."""
    elsewhere = {"Constant", "DequantizeLinear", "QuantizeLinear", "Shape", "Size", "Where"}
    assert set(CONVERTERS) - {each.op for each in CASES} == elsewhere


def test_sizes_are_computed_while_reading(tmp_path: Path) -> None:
    """If this fails, the arithmetic of sizes that exporters write around a Reshape, with the batch
    among them, is refused or fixes the batch."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["first"]),
        helper.make_node("Gather", ["shape", "one"], ["channels"], axis=0),
        helper.make_node("Div", ["channels", "two"], ["half"]),
        helper.make_node("Unsqueeze", ["half", "axes"], ["second"]),
        helper.make_node("Constant", [], ["rest"], value_ints=[2, -1]),
        helper.make_node("Concat", ["first", "second", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
        helper.make_node("Size", ["y"], ["count"]),
        helper.make_node("Cast", ["count"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["channels"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["y", "factor"], ["z"]),
    ]
    constants = [constant(np.asarray(n, np.int64), name) for name, n in
                 (("zero", 0), ("one", 1), ("two", 2), ("axes", [0]))]  # fmt: skip
    for batch in (1, "n"):
        model = model_of(nodes, {"x": (batch, *MAP)}, ["z"], constants)
        compare(model, numbers(2, *MAP), tmp_path / "net.onnx")


def test_where_and_masks(tmp_path: Path) -> None:
    """If this fails, a Where with a constant condition, or minus infinity in front of a softmax, is
    not what ONNX says."""
    nodes = [
        helper.make_node("Where", ["mask", "x", "low"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["y"], axis=-1),
    ]
    mask = np.arange(5).reshape(1, 1, 1, 5) % 3 != 1
    constants = [constant(mask, "mask"), constant(np.float32(-np.inf), "low")]
    model = model_of(nodes, {"x": (1, *MAP)}, ["y"], constants)
    compare(model, numbers(2, *MAP), tmp_path / "net.onnx")


def test_batch_may_be_elsewhere(tmp_path: Path) -> None:
    """If this fails, a network that works with the batch at another axis, or drops a batch of one
    and brings it back, is refused or mixes images."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[2, 0, 1, 3]),  # [H, N, C, W]
        helper.make_node("ReduceMean", ["turned"], ["means"], axes=[0], keepdims=0),  # [N, C, W]
        helper.make_node("Softmax", ["means"], ["soft"], axis=2),
        helper.make_node("Squeeze", ["soft", "axes"], ["alone"]),  # [C, W]
        helper.make_node("Add", ["alone", "row"], ["sum"]),
        helper.make_node("Unsqueeze", ["sum", "axes"], ["y"]),
    ]
    constants = [constant(np.asarray([0], np.int64), "axes"), constant(numbers(5), "row")]
    model = model_of(nodes, {"x": (1, *MAP)}, ["y"], constants)
    compare(model, numbers(2, *MAP), tmp_path / "net.onnx")
