"""ONNX files whose results are quantised (QuantizeLinear, DequantizeLinear) become integers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx_files import by_runtime, constant, model_of, saved
from torch import nn

import kernelprune as kp
from kernelprune import Error, UnsupportedOperator
from kernelprune.cli import main
from kernelprune.errors import QuantizationWarning
from kernelprune.format.reader import read
from kernelprune.frontends.onnx import read_onnx
from kernelprune.graph.ir import Graph

SHAPE = (3, 12, 12)
# Share of the outputs' bytes that may be another one, and by how many steps: the engine multiplies
# by factors that it rounds once, ONNX Runtime by others, so that a tie may go the other way, and
# layers behind it hand that on.
OTHERS, STEPS = 0.02, 1


class Blocks(nn.Module):
    """Convolution, batch norm and ReLU; a depthwise one; a residual sum; an SE gate; a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.last = nn.Conv2d(8, 6, 3, stride=2)
        self.head = nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.conv(x)))
        y = torch.relu(self.depthwise(y) + y)
        y = nn.functional.max_pool2d(y, 2)
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return self.head(torch.relu(self.last(y * gate)).mean((2, 3)))


def images(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *SHAPE)).astype(np.float32)


def network() -> nn.Module:
    torch.manual_seed(0)
    model = Blocks()
    for _ in range(3):
        model(torch.randn(16, *SHAPE))
    return model.eval()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as a file of float32."""
    path = tmp_path_factory.mktemp("plain") / "net.onnx"
    kp.to_onnx(network(), path, torch.from_numpy(images(1)))
    return path


def by_static(plain: Path, path: Path, **options: Any) -> Path:
    """What ONNX Runtime's own tool makes of it."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        left = [images(16, 2), images(16, 3)]
        given = onnx.load(plain).graph.input[0].name

        def get_next(self) -> Any:
            return {self.given: self.left.pop()} if self.left else None

    quantization.quantize_static(plain, path, Reader(), **options)
    return path


def exported(path: Path, out: Path) -> Graph:
    model = kp.load_onnx(path)
    return kp.export(model, torch.from_numpy(images(2)), out)


def floats_of(graph: Graph) -> list[str]:
    """Layers without integer weights."""
    return [node.name for node in graph.nodes if node.has_weight() and node.weight_scale is None]


def assert_alike(found: np.ndarray, wanted: np.ndarray, scale: float) -> None:
    steps = np.abs(found - wanted) / scale
    assert steps.max() <= STEPS + 1e-3
    assert (steps > 0.5).mean() <= OTHERS
    assert np.abs(wanted).max() > 20 * scale  # else the comparison would say little


def _types() -> tuple[Any, Any]:
    from onnxruntime.quantization import QuantType

    return QuantType.QUInt8, QuantType.QInt8


@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_quantize_static(plain: Path, tmp_path: Path, signed: bool, by_channel: bool) -> None:
    """If this fails, what ONNX Runtime has quantised (U8S8 or S8S8) is not run as int8, or with
    other numbers than its own."""
    unsigned, integer = _types()
    path = by_static(
        plain, tmp_path / "int8.onnx", per_channel=by_channel, weight_type=integer,
        activation_type=integer if signed else unsigned,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantizationWarning)
        graph = exported(path, tmp_path / "net.safetensors")
    assert not floats_of(graph)
    last = graph.producer(graph.outputs[0])
    assert last is not None and last.quantization is not None
    x = images(64)
    found = kp.Engine(tmp_path / "net.safetensors").run(x)
    (wanted,) = by_runtime(path, [x])
    assert_alike(found, wanted, last.quantization.scale)


def test_nncf(plain: Path, tmp_path: Path) -> None:
    """If this fails, what NNCF has quantised as an ONNX file is not run as int8, or with other
    numbers than ONNX Runtime's."""
    nncf = pytest.importorskip("nncf")
    model = onnx.load(plain)
    given = [{model.graph.input[0].name: images(1, seed)} for seed in range(8)]
    path = tmp_path / "int8.onnx"
    onnx.save(nncf.quantize(model, nncf.Dataset(given), subset_size=8), path)
    graph = exported(path, tmp_path / "net.safetensors")
    assert not floats_of(graph)
    x = images(64)
    found = kp.Engine(tmp_path / "net.safetensors").run(x)
    (wanted,) = by_runtime(path, [x])
    # The last layer's results are numbers.
    assert np.linalg.norm(found - wanted) <= 1e-3 * np.linalg.norm(wanted)


def test_batch_norms_that_are_not_folded(tmp_path: Path) -> None:
    """If this fails, a batch norm between quantised values, which ONNX Runtime's tool leaves where
    a file was not prepared, makes other numbers."""
    rng = np.random.default_rng(0)
    given = {
        "w": rng.standard_normal((8, 3, 3, 3)) / 5, "b": rng.standard_normal(8),
        "gain": rng.uniform(-1, 2, 8), "shift": rng.standard_normal(8),
        "mean": rng.standard_normal(8), "var": rng.uniform(0.5, 2, 8),
    }  # fmt: skip
    made = helper.make_node
    nodes = [
        made("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        made("BatchNormalization", ["c", "gain", "shift", "mean", "var"], ["n"], name="norm"),
        made("Relu", ["n"], ["r"], name="relu"),
        made("Add", ["r", "c"], ["y"], name="sum"),
    ]
    constants = [constant(array, name) for name, array in given.items()]
    model = model_of(nodes, {"x": ("N", *SHAPE)}, ["y"], constants)
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 8, 12, 12])
    )
    path = by_static(saved(model, tmp_path / "plain.onnx"), tmp_path / "int8.onnx")
    graph = exported(path, tmp_path / "net.safetensors")
    last = graph.producer(graph.outputs[0])
    assert last is not None and last.quantization is not None
    x = images(16)
    (wanted,) = by_runtime(path, [x])
    found = kp.Engine(tmp_path / "net.safetensors").run(x)
    assert_alike(found, wanted, last.quantization.scale)


@pytest.mark.parametrize("u8", [False, True])
def test_out_and_in_again(tmp_path: Path, u8: bool) -> None:
    """If this fails, a quantised network changes on its way to an ONNX file and back."""
    x = torch.from_numpy(images(32))
    model = kp.quantize(network(), [x])
    first, again = tmp_path / "first.safetensors", tmp_path / "again.safetensors"
    kp.export(model, x[:1], first)
    if u8:
        graph = read(first)[0]
        graph.inputs[0].dtype = "u8"
        kp.to_onnx(graph, tmp_path / "net.onnx")
        kp.export(kp.load_onnx(tmp_path / "net.onnx"), torch.ones(1, *SHAPE).byte(), again)
        value = read(again)[0].inputs[0]
        assert (value.dtype, value.quantization) == ("u8", graph.inputs[0].quantization)
    else:
        kp.to_onnx(first, tmp_path / "net.onnx")
        exported(tmp_path / "net.onnx", again)
        engines = [kp.Engine(path).run(x.numpy()) for path in (first, again)]
        np.testing.assert_array_equal(*engines)
    before, after = (
        [node for node in read(path)[0].nodes if node.has_weight()] for path in (first, again)
    )
    assert len(before) == len(after)
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.weight, two.weight)
        np.testing.assert_array_equal(one.bias, two.bias)
        np.testing.assert_array_equal(one.weight_scale, two.weight_scale)


def test_command(plain: Path, tmp_path: Path) -> None:
    """If this fails, ``kernelprune export`` does not write a quantised file in int8."""
    path = by_static(plain, tmp_path / "int8.onnx")
    with pytest.raises(SystemExit) as ended:
        main(["export", str(path), "--out", str(tmp_path / "net.safetensors")])
    assert ended.value.code == 0
    assert not floats_of(read(tmp_path / "net.safetensors")[0])


# ---------------------------------------------------------------- single nodes

F32 = np.float32
STEP, WEIGHT_STEP, ZERO = F32(0.05), F32(0.0103), np.uint8(120)
BIAS_STEP = STEP * WEIGHT_STEP


def one_layer(
    *,
    scale: Any = STEP,
    zero: Any = ZERO,
    weight: Any = None,
    weight_scale: Any = WEIGHT_STEP,
    weight_zero: Any = None,
    axis: int = 0,
    bias: Any = None,
    bias_scale: Any = BIAS_STEP,
    op: str = "Conv",
    back: Sequence[str] = ("s", "z"),
    between: Sequence[Any] = (),
) -> onnx.ModelProto:
    """x [N,4,3,3] or [N,4] -> bytes -> a layer -> bytes -> y."""
    if weight is None:
        weight = np.arange(-10, 10, dtype=np.int8).reshape(5, 4, 1, 1)
    constants = {"s": scale, "z": zero, "w": weight, "ws": weight_scale}
    constants |= {"t": F32(0.05), "tz": np.int8(-10)}
    steps = ["w", "ws"]
    if weight_zero is not None:
        constants["wz"] = weight_zero
        steps.append("wz")
    made = helper.make_node
    nodes = [
        made("QuantizeLinear", ["x", "s", "z"], ["q"], name="first"),
        *between,
        made("DequantizeLinear", ["moved" if between else "q", *back], ["xf"]),
        made("DequantizeLinear", steps, ["wf"], axis=axis),
    ]
    operands = ["xf", "wf"]
    if bias is not None:
        constants |= {"b": bias, "bs": bias_scale}
        nodes.append(made("DequantizeLinear", ["b", "bs"], ["bf"], axis=0))
        operands.append("bf")
    nodes += [
        made(op, operands, ["layer"], name="layer"),
        made("QuantizeLinear", ["layer", "t", "tz"], ["r"]),
        made("DequantizeLinear", ["r", "t", "tz"], ["y"]),
    ]
    shape = ("N", 4, 3, 3) if op == "Conv" else ("N", 4)
    given = [constant(array, name) for name, array in constants.items()]
    return model_of(nodes, {"x": shape}, ["y"], given)


def ran(model: onnx.ModelProto, tmp_path: Path) -> tuple[Graph, np.ndarray, np.ndarray]:
    """(the file's graph, what the engine computes, what ONNX Runtime does)."""
    module = kp.load_onnx(saved(model, tmp_path / "net.onnx"))
    sides = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(0).standard_normal((64, *sides)).astype(F32) * 3
    graph = kp.export(module, torch.from_numpy(x), tmp_path / "net.safetensors")
    return graph, kp.Engine(tmp_path / "net.safetensors").run(x), by_runtime(model, [x])[0]


MATRIX = np.arange(-10, 10, dtype=np.int8).reshape(4, 5)
BIAS = np.asarray([900, -900, 0, 1 << 26, -5], np.int32)

EXPRESSED = {
    "zero point 0": {"zero": np.uint8(0)},
    "zero point 255": {"zero": np.uint8(255)},
    "signed": {"zero": np.int8(-128)},
    "scales of shape [1]": {"scale": np.full(1, F32(0.05)), "zero": np.full(1, np.uint8(3))},
    "by channel": {"weight_scale": np.linspace(0.01, 0.03, 5, dtype=F32)},
    "unsigned weights": {
        "weight": np.arange(0, 240, 12, dtype=np.uint8).reshape(5, 4, 1, 1),
        "weight_zero": np.uint8(128),
    },
    "-128": {"weight": np.full((5, 4, 1, 1), -128, np.int8), "weight_scale": F32(0.001)},
    "bias": {"bias": BIAS[[0, 1, 2, 4, 4]]},
    "matrix": {"op": "MatMul", "weight": MATRIX},
    "matrix by channel": {
        "op": "MatMul", "weight": MATRIX, "axis": 1, 
        "weight_scale": np.linspace(0.02, 0.04, 5, dtype=F32),
    },
    "moved integers": {
        "between": [helper.make_node("MaxPool", ["q"], ["moved"], kernel_shape=[1, 1])],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", EXPRESSED)
def test_expressed(name: str, tmp_path: Path) -> None:
    """If this fails, zero points, scales or integers of this kind are read as other numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantizationWarning)
        graph, found, wanted = ran(one_layer(**EXPRESSED[name]), tmp_path)
    assert not floats_of(graph)
    assert np.abs(found - wanted).max() <= 0.05 * (STEPS + 1e-3)
    assert (np.abs(found - wanted) > 0.01).mean() <= OTHERS


def test_large_biases_are_exact(tmp_path: Path) -> None:
    """If this fails, a bias of 32 bits is rounded to float32 on its way."""
    graph, _, _ = ran(one_layer(bias=BIAS), tmp_path)
    (layer,) = [node for node in graph.nodes if node.has_weight()]
    np.testing.assert_array_equal(layer.bias, BIAS)


LEFT = {
    "16 bits": ({"zero": np.uint16(7)}, "'first' stay float32: it has 65536 levels"),
    "other axis": (
        {"axis": 1, "weight_scale": np.linspace(0.01, 0.03, 4, dtype=F32)},
        "'layer' stays float32: its weights have other scales",
    ),
    "scale too small": ({"scale": F32(1e-20)}, "'first' stay float32: its scale is 1e-20"),
}


@pytest.mark.parametrize("name", LEFT)
def test_left_in_float32(name: str, tmp_path: Path) -> None:
    """If this fails, what bytes cannot express is not named, or not computed as numbers."""
    options, match = LEFT[name]
    path = saved(one_layer(**options), tmp_path / "net.onnx")
    with pytest.warns(QuantizationWarning, match=match):
        model = kp.load_onnx(path)
    graph = kp.export(model, torch.randn(2, 4, 3, 3), tmp_path / "net.safetensors")
    assert floats_of(graph)


REFUSED = {
    "zero scale": ({"scale": F32(0)}, "has a scale of 0"),
    "negative scale": ({"scale": F32(-1)}, "has a scale of -1"),
    "NaN scale": ({"scale": F32(np.nan)}, "has a scale of nan"),
    "infinite scale": ({"scale": F32(np.inf)}, "has a scale of inf"),
    "scales of a result": (
        {"scale": np.ones(4, F32), "zero": np.zeros(4, np.uint8)},
        r"scales of shape \[4\] for a result",
    ),
    "scale of integers": ({"scale": np.int32(1)}, "the scale holds int32"),
    "zero points": ({"zero": np.zeros(4, np.uint8)}, r"zero points of shape \[4\]"),
    "zero point of a number": ({"zero": F32(0)}, "integers of type float32"),
    "zero point of 32 bits": ({"zero": np.int32(0)}, "integers of type int32"),
    "other way back": ({"scale": F32(0.04), "back": ("t", "z")}, "its QuantizeLinear 0.04"),
    "other type back": ({"scale": F32(0.04), "back": ("s", "tz")}, "zero point of type int8"),
    "integers read": (
        {"between": [helper.make_node("Cast", ["q"], ["moved"], to=2)]},
        "reads the integers of QuantizeLinear",
    ),
    "NaN weights": ({"weight_scale": F32(np.nan)}, "not finite"),
    "weight axis": ({"axis": 7, "weight_scale": np.ones(5, F32)}, "along axis 7"),
    "weight scales": ({"weight_scale": np.ones(3, F32)}, "3 scales for 5 entries along axis 0"),
    "weight scales of two axes": ({"weight_scale": np.ones((5, 1), F32)}, r"shape \[5, 1\]"),
    "weight zero point": ({"weight_zero": np.uint8(0)}, "zero point of type uint8"),
    "weight zero points": ({"weight_zero": np.zeros(2, np.int8)}, r"zero points of shape \[2\]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    """If this fails, scales and zero points that mean nothing are taken, or end in no clear
    error."""
    options, match = REFUSED[name]
    with pytest.raises(UnsupportedOperator, match=match):
        read_onnx(saved(one_layer(**options), tmp_path / "net.onnx"))


def test_work_is_bounded(tmp_path: Path) -> None:
    """If this fails, a small file has constants dequantised until the memory is full."""
    nodes = [
        helper.make_node(
            "ConstantOfShape", ["n"], ["big"], value=constant(np.ones(1, np.int8), "v")
        )
    ]
    nodes += [helper.make_node("DequantizeLinear", ["big", "s"], [f"d{i}"]) for i in range(9)]
    nodes += [helper.make_node("Concat", [f"d{i}" for i in range(9)], ["all"], axis=0)]
    nodes += [helper.make_node("Add", ["x", "all"], ["y"])]
    constants = [constant(np.asarray([1 << 19], np.int64), "n"), constant(F32(1), "s")]
    model = model_of(nodes, {"x": (1, 4)}, ["y"], constants)
    with pytest.raises(UnsupportedOperator, match="computes more from constants"):
        read_onnx(saved(model, tmp_path / "net.onnx"))


def test_integers_and_their_operators_are_refused(tmp_path: Path) -> None:
    """If this fails, a file that ends in integers, or computes with them, is read as numbers."""
    model = one_layer()
    model.graph.output[0].name = "r"
    with pytest.raises(Error, match="'r' holds integers: end in DequantizeLinear"):
        read_onnx(saved(model, tmp_path / "net.onnx"))
    constants = [constant(MATRIX, "w"), constant(F32(1), "s"), constant(np.uint8(0), "z")]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("MatMulInteger", ["q", "w"], ["y"], name="product"),
    ]
    with pytest.raises(UnsupportedOperator, match="MatMulInteger"):
        read_onnx(saved(model_of(nodes, {"x": (1, 4)}, ["y"], constants), tmp_path / "net.onnx"))
