"""Forwards of all signatures, outputs of all kinds, sizes and types: what trace makes of them, and
what it says where it can make nothing of them."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import nn

from kernelprune import Error, UnsupportedOperator
from kernelprune.frontends.torch import to_torch, trace

X = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("mean", torch.rand(1, 3, 1, 1))


class Ultralytics(Model):
    def forward(self, x, *args, **kwargs):
        return self.conv(x, *args, **kwargs)


class Options(Model):
    def forward(self, x, targets=None, *, augment=False):
        if targets is not None or augment:
            raise ValueError("only for training")
        return self.conv(x)


class TwoInputs(Model):
    def forward(self, x, *, other):
        return self.conv(x) + self.conv(other)


class Auxiliary(Model):
    def forward(self, x):
        y = self.conv(x)
        return (y, y.mean()) if self.training else y


@dataclasses.dataclass
class ModelOutput:
    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...] = ()
    loss: torch.Tensor | None = None


Pair = namedtuple("Pair", "scores maps")


class Outputs(Model):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(self, x, self.conv(x))


FORWARDS = {
    "any arguments": (Ultralytics, X, ["x"]),
    "options": (Options, X, ["x"]),
    "an input by keyword alone": (TwoInputs, (X, 2 * X), ["x", "other"]),
    "a branch for training": (lambda: Auxiliary().train(), X, ["x"]),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_forward(name: str) -> None:
    """If this fails, a model whose forward takes more than its inputs cannot be captured, as none
    of ultralytics' can."""
    make, x, inputs = FORWARDS[name]
    model = make()
    forward = model.forward
    graph = trace(model, x)
    assert [value.name for value in graph.inputs] == inputs
    assert len(graph.outputs) == 1 and graph.output_names == graph.outputs
    assert model.forward == forward and "forward" not in vars(model)
    model.eval()
    images = x if isinstance(x, tuple) else (x,)
    want = model(X, other=2 * X) if len(images) == 2 else model(X)
    assert torch.allclose(to_torch(graph)(*images), want, atol=1e-6)


OUTPUTS: dict[str, tuple[Any, list[str]]] = {
    "a tuple": (lambda m, x, y: (y, y.relu()), ["0", "1"]),
    "a dict": (
        lambda m, x, y: {"boxes": y, "heads": [x, y.relu()]}, ["boxes", "heads.0", "heads.1"],
    ),
    "None among them": (lambda m, x, y: (None, y, {"a": None, "b": y.relu()}), ["1", "2.b"]),
    "a dataclass": (lambda m, x, y: ModelOutput(y, (y.relu(),)), ["logits", "hidden.0"]),
    "a named tuple": (lambda m, x, y: [Pair(y, y.relu())], ["0.scores", "0.maps"]),
    "one twice": (lambda m, x, y: {"a": y, "b": y}, ["a", "b"]),
    "the input": (lambda m, x, y: {"y": y, "x": x}, ["y", "x"]),
    "odd keys": (lambda m, x, y: {"a b": y, "a_b": y, 3: y}, ["a_b", "a_b:2", "3"]),
    "the largest, and where": (lambda m, x, y: y.max(1), ["0", "1"]),
    "numbers per image": (lambda m, x, y: {"mean": y.mean((1, 2, 3))}, ["mean"]),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs(name: str) -> None:
    """If this fails, a user cannot tell the outputs of a detector apart, or they are not all
    there."""
    function, names = OUTPUTS[name]
    model = Outputs(function).eval()
    graph = trace(model, X)
    assert graph.output_names == names and len(graph.outputs) == len(names)
    found = to_torch(graph)(X)
    found = found if isinstance(found, tuple) else (found,)
    result = model(X)
    if isinstance(result, ModelOutput):
        result = [result.logits, *result.hidden]
    leaves = [y for y in torch.utils._pytree.tree_leaves(result) if y is not None]
    for have, want in zip(found, leaves, strict=True):
        assert torch.allclose(have.reshape(want.shape), want.float(), atol=1e-6)


def test_output_of_no_input() -> None:
    """If this fails, a model that returns a constant beside its result says nothing about it."""
    for result, shown in ((torch.ones(3), "does not depend"), ("cat", "output 'cat' does not")):
        with pytest.raises(Error, match=shown):
            trace(Outputs(lambda m, x, y, r=result: (y, r)).eval(), X)


# Function of (model, x, conv(x)) that uses sizes and constants -> ops of its graph.
COMPUTED: dict[str, tuple[Any, str]] = {
    "halves of a map": (
        lambda m, x, y: torch.cat([y[:, :, y.shape[2] // 2 :], y[:, :, : y.shape[2] // 2]], 2),
        "conv2d slice slice concat",
    ),
    "sizes of the batch": (
        lambda m, x, y: y.view(y.shape[0] * 2, -1).view(y.shape[0], y[0].numel()),
        "conv2d flatten",
    ),
    "zeros for the batch": (
        lambda m, x, y: torch.cat([y, torch.zeros(y.shape[0], 1, 6, 6)], 1),
        "conv2d constant concat",
    ),
    "a size as a number": (lambda m, x, y: y / y.shape[2] ** 0.5, "conv2d affine"),
    "a token for the batch": (
        lambda m, x, y: torch.cat([m.mean.repeat(x.shape[0], 1, 8, 8), x], 1), "constant concat",
    ),
    "a constant of constants": (
        lambda m, x, y: x - (m.mean * torch.arange(3.0)[:, None, None]).exp(), "affine",
    ),
    "split": (lambda m, x, y: sum(y.split([1, 3], 1)[1].unbind(1)), None),
    "dropout of a constant": (
        lambda m, x, y: x + nn.functional.dropout(m.mean, 0.5, m.training), "affine",
    ),
    "a branch for nothing": (lambda m, x, y: (torch.special.i0(y), y)[1], "conv2d"),
    "another type and back": (lambda m, x, y: y.double().float(), "conv2d"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPUTED)
def test_computed_sizes_and_constants(name: str) -> None:
    """If this fails, code that computes with the sizes of its maps makes a graph for one batch, or
    none."""
    function, ops = COMPUTED[name]
    model = Outputs(function).eval()
    graph = trace(model, X[:1])
    if ops is not None:
        assert [node.op for node in graph.nodes] == ops.split()
    assert torch.allclose(to_torch(graph)(X), model(X), atol=1e-5)


def test_bytes_as_input() -> None:
    """If this fails, a model that normalises the bytes of an image itself cannot be captured, or
    its file wants floats."""
    images = (X * 99).abs().to(torch.uint8)

    class Bytes(Model):
        def forward(self, x):
            return self.conv((x.float() / 255 - self.mean) / 0.5)

    model = Bytes().eval()
    graph = trace(model, images)
    assert graph.inputs[0].dtype == "u8" and graph.inputs[0].shape == (3, 8, 8)
    assert torch.allclose(to_torch(graph)(images), model(images), atol=1e-5)


REFUSED: dict[str, tuple[Any, str]] = {
    "half": (lambda m, x, y: y.half().float(), "from float32 to float16; keep to float32"),
    "integers": (lambda m, x, y: y.int(), "from float32 to int32"),
    "the number of images": (lambda m, x, y: y / y.shape[0], "size of the batch"),
    "noise": (lambda m, x, y: y + torch.rand(6), "aten::rand.*is random"),
    "counted images": (
        lambda m, x, y: y + torch.ones(y.shape[0]).cumsum(0)[:, None, None, None],
        "cumsum.*size of the batch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """If this fails, a graph computes something else than the model, or a cause has several
    messages."""
    function, why = REFUSED[name]
    with pytest.raises(UnsupportedOperator, match=why) as caught:
        trace(Outputs(function).eval(), X)
    assert len(str(caught.value).splitlines()) == 1
    assert "test_forward.py" in str(caught.value)


def test_integer_input() -> None:
    """If this fails, a model of words is captured as one of images."""
    with pytest.raises(UnsupportedOperator, match="input.*int64.*floating point or uint8"):
        trace(nn.Embedding(3, 4).eval(), torch.ones(2, 8).long())


def fixed(m, x, y):
    return y.reshape(2, -1)


def branches(m, x, y):
    return y if x.shape[0] == 2 else y + 1


def raises(m, x, y):
    raise ValueError("the anchors are missing\nin this file")


def by_values(m, x, y):
    return y if y.sum() > 0 else -y


CANNOT_TRACE = {
    "a fixed batch": (fixed, r"constant, at .*test_forward.py:\d+: .*reshape\(2.*\(aten::reshape"),
    "a branch for a batch": (branches, r"constant, at .*test_forward.py:\d+: .*shape\[0\] == 2"),
    "an error": (raises, r"size: the anchors are missing \(.*test_forward.py:\d+: raise Value"),
    "values": (by_values, r"data-dependent: .*test_forward.py:\d+: .*y.sum\(\) > 0"),
}


@pytest.mark.parametrize("name", CANNOT_TRACE)
def test_reason_and_line(name: str, capfd) -> None:
    """If this fails, a user looks for a fault of torch.export, not at the line that is to be
    changed."""
    function, why = CANNOT_TRACE[name]
    model = Outputs(function)
    with pytest.raises(Error, match=why) as caught:
        trace(model, X)
    assert len(str(caught.value).splitlines()) == 1
    assert "forward" not in vars(model) and model.training
    assert "".join(capfd.readouterr()) == ""


def test_too_many_inputs() -> None:
    """If this fails, an example with an input too many is a riddle about torch.export."""
    with pytest.raises(Error, match="2 inputs, .* forward of Auxiliary, which takes 1"):
        trace(Auxiliary(), (X, X))
