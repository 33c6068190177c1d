"""Files of anybody's: each either loads or is one clear error, in bounded time and memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_files import constant, model_of, saved

from kernelprune import Error, FormatError, MissingPackage, UnsupportedOperator
from kernelprune.frontends.onnx import read_onnx
from kernelprune.frontends.onnx.load import load_onnx


def relu(source: str = "x", result: str = "y", name: str = "") -> Any:
    return helper.make_node("Relu", [source], [result], name=name)


def net(*nodes: Any, constants: Any = (), outputs: Any = ("y",), shape: Any = (1, 4)) -> Any:
    return model_of(nodes or [relu()], {"x": shape}, outputs, constants)


def huge_without_data() -> Any:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 40])
    return net(helper.make_node("Add", ["x", "w"], ["y"]), constants=[tensor])


def with_dims(*dims: int, kind: int = TensorProto.FLOAT) -> Callable[[], Any]:
    def make() -> Any:
        tensor = TensorProto(name="w", data_type=kind, dims=dims, raw_data=b"\0" * 16)
        return net(helper.make_node("Add", ["x", "w"], ["y"]), constants=[tensor])

    return make


def growing() -> Any:
    shape = constant(np.asarray([1 << 20, 1 << 20], np.int64), "shape")
    fill = helper.make_node("ConstantOfShape", ["shape"], ["big"])
    return net(fill, helper.make_node("Add", ["x", "big"], ["y"]), constants=[shape])


def doubling() -> Any:
    """Each node makes twice as many numbers of the one before."""
    nodes = [helper.make_node("Concat", [f"c{i}"] * 2, [f"c{i + 1}"], axis=0) for i in range(60)]
    nodes.append(helper.make_node("Add", ["x", "c60"], ["y"]))
    return net(*nodes, constants=[constant(np.ones(4, np.float32), "c0")])


def growing_value() -> Any:
    nodes = [helper.make_node("Concat", [f"v{i}"] * 4, [f"v{i + 1}"], axis=1) for i in range(40)]
    return net(relu("x", "v0"), *nodes, outputs=["v40"])


def with_branch() -> Any:
    body = helper.make_graph(
        [relu("x", "inside")], "body", [], [onnx.ValueInfoProto(name="inside")]
    )
    return net(
        helper.make_node("If", ["x"], ["y"], name="choice", then_branch=body, else_branch=body)
    )


def with_input_type(kind: int) -> Any:
    model = net()
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


def with_opset(version: int) -> Any:
    model = net()
    model.opset_import[0].version = version
    return model


CASES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "cycle": (lambda: net(relu("b", "y"), relu("y", "b")), FormatError, "nothing defines before"),
    "undefined": (lambda: net(relu("missing")), FormatError, "'missing', which nothing defines"),
    "defined twice": (lambda: net(relu(), relu()), FormatError, "'y' is defined twice"),
    "output twice": (lambda: net(outputs=["y", "y"]), FormatError, "two outputs have one name"),
    "no such output": (lambda: net(outputs=["z", "y"]), FormatError, "'z' is computed by no node"),
    "constant output": (
        lambda: net(relu(), relu("c", "z"), outputs=["y", "z"],
                    constants=[constant(np.ones(3, np.float32), "c")]),
        Error, "'z' does not depend",
    ),
    "huge": (huge_without_data, FormatError, "has no data for it"),
    "negative": (with_dims(-4, -1), FormatError, "has a side of -4"),
    "short": (with_dims(5), FormatError, "does not have its data"),
    "unknown type": (with_dims(4, kind=99), FormatError, "a type of number 99"),
    "strings": (with_dims(4, kind=TensorProto.STRING), FormatError, "holds string"),
    "growing": (growing, UnsupportedOperator, "more from constants than a file of this size"),
    "doubling": (doubling, UnsupportedOperator, "more from constants than a file of this size"),
    "growing value": (growing_value, Error, "v"),
    "branch": (with_branch, UnsupportedOperator, "If, node 'choice': runs a graph of its own"),
    "input of integers": (lambda: with_input_type(TensorProto.INT64), FormatError, "holds int64"),
    "old": (lambda: with_opset(3), FormatError, "opset 3: 7 to 22"),
    "new": (lambda: with_opset(99), FormatError, "opset 99: 7 to 22"),
    "negative side": (lambda: net(shape=(1, -7)), FormatError, "a side of -7"),
    "wide input": (lambda: net(shape=(1, 1 << 50)), FormatError, "has a side of"),
    "free size": (lambda: net(shape=(1, 3, "h", "w")), Error, r"say its size per image"),
    "number": (lambda: net(shape=()), FormatError, "no batch of images"),
}  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", CASES)
def test_refused(name: str, tmp_path: Path) -> None:
    """If this fails, a damaged or hostile file is computed with, or takes memory and time out of
    proportion, or ends in an error that says nothing."""
    make, kind, message = CASES[name]
    with pytest.raises(kind, match=message):
        read_onnx(saved(make(), tmp_path / "net.onnx"))


def test_truncated_and_damaged(tmp_path: Path) -> None:
    """If this fails, bytes that are no model escape as an error of protobuf, numpy or Python's."""
    weight = constant(np.ones((5, 4), np.float32), "w")
    model = net(helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), constants=[weight])
    content = model.SerializeToString()
    path, rng = tmp_path / "net.onnx", np.random.default_rng(0)
    damaged = [content[:length] for length in range(0, len(content), 7)]
    for _ in range(150):
        changed = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            changed[place] = rng.integers(256)
        damaged.append(bytes(changed))
    refused = 0
    for each in damaged:
        path.write_bytes(each)
        try:
            read_onnx(path)
        except Error:
            refused += 1
    assert refused > len(damaged) // 3


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "link", "", "missing"])
def test_external_data_stays_in_the_folder(location: str, tmp_path: Path) -> None:
    """If this fails, a file makes us read what lies outside of its folder."""
    (tmp_path / "secret").write_bytes(b"\0" * 16)
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(Error, match=r"outside of|does not say|no such file|not a regular"):
        read_onnx(external(folder, location))


def test_external_data_is_read(tmp_path: Path) -> None:
    """If this fails, weights in a file beside the model are not read, or past its end."""
    (tmp_path / "data").write_bytes(np.arange(8, dtype="<f4").tobytes())
    graph = read_onnx(external(tmp_path, "data", offset="16"))
    np.testing.assert_array_equal(graph.nodes[0].tensors["shift"], [4, 5, 6, 7])
    with pytest.raises(FormatError, match="needs 16 bytes"):
        read_onnx(external(tmp_path, "data", offset="20"))


def external(folder: Path, location: str, **more: str) -> Path:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    model = net(helper.make_node("Add", ["x", "w"], ["y"]), constants=[tensor])
    return saved(model, folder / "net.onnx")


def test_all_operators_are_named_at_once(tmp_path: Path) -> None:
    """If this fails, a user learns of one operator without counterpart after the other."""
    model = net(
        helper.make_node("Det", ["x"], ["a"], name="first"),
        helper.make_node("Einsum", ["a"], ["b"], name="behind", equation="ij->ij"),
        helper.make_node("NonZero", ["x"], ["c"], name="second"),
        helper.make_node("Own", ["x"], ["d"], name="third", domain="my.domain"),
        outputs=["b", "c", "d"],
    )
    with pytest.raises(UnsupportedOperator) as caught:
        read_onnx(saved(model, tmp_path / "net.onnx"))
    for text in ("Det", "'first'", "NonZero", "'second'", "my.domain:Own", "'third'", "Einsum"):
        assert text in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If this fails, a user without the packages onnx or torch is not told what to install."""
    path = saved(net(), tmp_path / "net.onnx")
    with monkeypatch.context() as context, pytest.raises(MissingPackage, match=r"\[train\]"):
        context.setitem(sys.modules, "torch", None)
        load_onnx(path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackage, match=r"kernelprune\[onnx\]"):
        read_onnx(path)
