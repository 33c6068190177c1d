"""What trace records beside the ops: names, modules, parameters; and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from frontends.torch.networks import Functional, network
from torch import nn

from kernelprune import Error, ShapeError, UnsupportedOperator
from kernelprune.frontends.torch import capture, to_torch, trace


class Unknown(nn.Module):
    """An operator that the engine lacks."""

    def forward(self, x):
        return torch.special.i0(x)


def test_names_and_modules() -> None:
    """If this fails, reports and compact cannot tell which module a layer is."""
    model, x = network("resnet_basic")
    graph = trace(model, x)
    modules = dict(model.named_modules())
    kinds = {"conv2d": nn.Conv2d, "linear": nn.Linear, "batch_norm": nn.BatchNorm2d}
    for node in graph.nodes:
        if node.op in kinds:
            assert node.name == node.module and isinstance(modules[node.module], kinds[node.op])
            assert node.parameters["weight"] == f"{node.module}.weight"
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)
    assert graph.node("blocks.0.conv1").source.endswith(
        "out = functional.relu(self.bn1(self.conv1(x)), inplace=True)"
    )


def test_module_called_twice() -> None:
    """If this fails, shared weights are lost, or compact slices a module that two places use."""
    model, x = network("functional")
    shared = [node for node in trace(model, x).nodes if node.module == "shared"]
    assert [node.name for node in shared] == ["shared", "shared:2"]
    assert all(node.parameters == {} for node in shared)


def test_training_mode_is_restored() -> None:
    """If this fails, a user's training goes on in eval mode after an export."""
    model, x = network("vgg")
    model.train()
    model.features[1].eval()
    before = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    trace(model, x)
    assert [module.training for module in model.modules()] == before
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_training_mode_is_restored_after_an_error() -> None:
    """If this fails, one unsupported model leaves everything in eval mode."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Unknown(), nn.Dropout()).train()
    with pytest.raises(
        UnsupportedOperator, match="aten::special_i0, node 'special_i0' of module '1': .*sparsify"
    ):
        trace(model, torch.randn(1, 3, 8, 8))
    assert all(module.training for module in model.modules())


def test_batch_is_never_an_image_size() -> None:
    """If this fails, a model exported with one batch size runs only with that one, or a batch of 8
    is mistaken for 8 channels."""
    model, _ = network("vgg")
    for batch in (1, 2, 8):
        graph = trace(model, torch.randn(batch, 3, 8, 8, dtype=torch.float64))
        assert graph.inputs[0].shape == (3, 8, 8)
        assert graph.node("classifier.0").shape == (16,)
    y = to_torch(graph, torch.float64)(torch.randn(5, 3, 8, 8, dtype=torch.float64))
    assert y.shape == (5, 5)


def test_fixed_batch_is_refused() -> None:
    """If this fails, a model that only runs with one batch size is exported as if it took any."""

    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(2, -1) if x.shape[0] == 2 else x

    with pytest.raises(Error, match="free batch size"):
        trace(Fixed(), torch.randn(2, 3, 4, 4))


def test_several_inputs_and_outputs() -> None:
    """If this fails, models with two branches or two heads cannot be exported."""

    class Two(nn.Module):
        def forward(self, a, b):
            total = a + b
            return {"sum": total, "parts": [total.relu(), b]}

    graph = trace(Two(), (torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3)))
    assert [value.name for value in graph.inputs] == ["a", "b"]
    assert graph.outputs == ["add", "relu", "b"] or len(graph.outputs) == 3
    found = to_torch(graph)(torch.ones(1, 2, 3, 3), -3 * torch.ones(1, 2, 3, 3))
    assert [float(y.mean()) for y in found] == [-2.0, 0.0, -3.0]


def test_variable_arguments() -> None:
    """If this fails, a model whose forward takes *inputs cannot be exported."""

    class Sum(nn.Module):
        def forward(self, *parts):
            return parts[0] + parts[1]

    graph = trace(Sum(), (torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3)))
    assert [node.op for node in graph.nodes] == ["add"] and len(graph.inputs) == 2


def test_model_that_overwrites_its_input() -> None:
    """If this fails, an in-place ReLU at the start adds an output or spoils the user's images."""
    x = -torch.ones(2, 3, 4, 4)
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3))
    graph = capture(model, x)
    assert len(graph.outputs) == 1 and [node.op for node in graph.nodes] == ["activation", "conv2d"]
    assert float(x.max()) == -1.0


def test_model_that_counts_its_calls() -> None:
    """If this fails, a buffer that the model updates turns up as an output."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return x.relu(), None

    model = Counting()
    graph = trace(model, torch.randn(1, 3, 4, 4))
    assert graph.outputs == ["relu"] and float(model.calls) == 0.0


def test_wrong_example_input() -> None:
    """If this fails, a wrong example gives a traceback from deep inside torch."""
    with pytest.raises(ShapeError, match=r"\[3\]; it must be a batch of images"):
        trace(nn.Identity(), torch.randn(3))
    with pytest.raises(ShapeError, match=r"\[1, 1, 1, 1, 3, 3\]; it must be a batch"):
        trace(nn.ReLU(), torch.randn(1, 1, 1, 1, 3, 3))
    with pytest.raises(Error, match=r"cannot trace Conv2d.*x\[None\] adds the batch"):
        trace(nn.Conv2d(3, 4, 3), torch.randn(3, 8, 8))
    with pytest.raises(Error, match="cannot trace Conv2d"):
        trace(nn.Conv2d(3, 4, 3), torch.randn(1, 5, 8, 8))


def test_output_without_input() -> None:
    """If this fails, a model that ignores its input is exported as an empty graph."""

    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(3)

    with pytest.raises(Error, match="does not depend on its input"):
        trace(Constant(), torch.randn(1, 3, 4, 4))


def test_opaque_keeps_going() -> None:
    """If this fails, one unknown operator stops compact from slicing the rest of the model."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Unknown(), nn.Conv2d(4, 4, 3), nn.ReLU())
    ops = [node.op for node in trace(model, torch.randn(1, 3, 8, 8), opaque=True).nodes]
    assert ops == ["conv2d", "opaque", "conv2d", "activation"]


def test_names_are_printable() -> None:
    """If this fails, a module with a space in its name gives a file that no reader accepts."""
    model = nn.Module()
    model.add_module("a b", nn.ReLU())
    model.forward = lambda x: getattr(model, "a b")(x)
    assert [node.name for node in trace(model, torch.randn(1, 3, 4, 4)).nodes] == ["a_b"]


def test_weights_computed_from_parameters() -> None:
    """If this fails, masked or normalised weights (pruning in progress) cannot be exported."""
    model, x = network("functional")
    assert isinstance(model, Functional)
    first = trace(model, x).nodes[0]
    assert torch.equal(torch.from_numpy(first.weight), (model.first * model.mask).detach())
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)).double().eval()
    node = trace(normed, x).nodes[0]
    assert torch.allclose(torch.from_numpy(node.weight), normed.weight, atol=1e-15)
