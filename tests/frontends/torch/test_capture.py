"""Whole networks through capture and export, against torch in float64 and against the engine."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from frontends.torch.networks import NETWORKS, network, zero_kernels
from torch import nn

import kernelprune
from kernelprune import Error, UnsupportedOperator
from kernelprune.format import Graph, read
from kernelprune.format.reader import read_bytes
from kernelprune.frontends.torch import capture, export, to_torch
from kernelprune.runtime.trial import run_bytes

DENSITIES = [1.0, 0.3]
export_module = importlib.import_module(
    "kernelprune.frontends.torch.export"
)  # hidden by the function


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def prepared(name: str, density: float) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Model, images [3, ...] and the model's outputs, which must differ between images."""
    model, x = network(name)
    if density < 1:
        zero_kernels(model, density)
    with torch.no_grad():
        expected = model(x.clone())
    assert relative(expected[:1], expected[1:2]) > 1e-3
    return model, x, expected


@cache
def captured(name: str, density: float) -> Graph:
    """What ``capture`` makes of it, once for all tests here: not to be changed."""
    model, x, _ = prepared(name, density)
    return capture(model, x[:1].clone())


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("name", NETWORKS)
def test_capture_keeps_the_function(name: str, density: float) -> None:
    """If this fails, networks of this style are exported wrongly."""
    _, x, expected = prepared(name, density)
    graph = captured(name, density)
    with torch.no_grad():
        assert relative(to_torch(graph, torch.float64)(x.clone()), expected) <= 1e-12
    assert graph.node(graph.nodes[0].name).weight.dtype == np.float64
    assert not {"batch_norm", "opaque"} & {node.op for node in graph.nodes}


@pytest.mark.parametrize("name", NETWORKS)
def test_keep_dead(name: str) -> None:
    """If this fails, keep_dead removes channels, or the default removes none."""
    model, x, expected = prepared(name, 0.3)
    graph = capture(model, x.clone(), keep_dead=True)
    with torch.no_grad():
        assert relative(to_torch(graph, torch.float64)(x.clone()), expected) <= 1e-12
    smaller = captured(name, 0.3)
    if name != "functional":  # has one small convolution module, whose kernels all stay
        assert smaller.all_connections() < graph.all_connections()
    total = sum(m.weight[:, :, 0, 0].numel() for m in model.modules() if isinstance(m, nn.Conv2d))
    convs = [node for node in graph.nodes if node.op == "conv2d"]
    assert sum(node.all_connections() for node in convs) >= total


FUSED = {
    "vgg": ["conv2d", "max_pool2d", "conv2d", "conv2d", "max_pool2d", "flatten", "linear"],
    "resnet_basic": ["conv2d", "max_pool2d"] + ["conv2d"] * 5 + ["global_avg_pool"],
    "resnet_bottleneck": ["conv2d", "max_pool2d"] + ["conv2d"] * 8 + ["global_avg_pool"],
}


@pytest.mark.parametrize("name", FUSED)
def test_nothing_is_left_to_fuse(name: str) -> None:
    """If this fails, VGG and ResNet pay for batch norms, activations or adds as separate steps."""
    graph = captured(name, 1.0)
    assert [node.op for node in graph.nodes][: len(FUSED[name])] == FUSED[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_export_and_engine(name: str, tmp_path: Path) -> None:
    """If this fails, the engine computes something else than the model that was exported."""
    model, x, expected = prepared(name, 0.3)
    path = tmp_path / "m.safetensors"
    export(model.float(), x[:1].float(), path)
    found = kernelprune.Engine(path, threads=1).run(x.float().numpy())
    assert relative(torch.from_numpy(found).double(), expected) <= 1e-5


def test_provenance(tmp_path: Path) -> None:
    """If this fails, nobody can tell later where a model file came from."""
    model, x = network("vgg")
    with torch.no_grad():
        model.features[4].weight[:, 1:] = 0
    export(model.float(), x.float(), tmp_path / "m", method="test", accuracy=0.5)
    graph, metadata = read(tmp_path / "m")
    assert metadata["source"] == "Vgg" and metadata["method"] == "test"
    assert metadata["accuracy"] == "0.5" and metadata["created_by"].startswith("kernelprune ")
    total = 3 * 8 + 8 * 12 + 12 * 12 + 48 * 16 + 16 * 5
    assert metadata["connections"] == f"{graph.kept_connections()}/{total}"
    assert float(metadata["density"]) == pytest.approx(graph.kept_connections() / total, rel=1e-5)


def test_export_checks_itself(tmp_path: Path) -> None:
    """If this fails, a model that capture misunderstands is written without a word."""

    class Fickle(nn.Module):
        def forward(self, x):
            return x if torch.compiler.is_exporting() else x.relu()

    with pytest.raises(Error, match="does not compute what the model computes"):
        export(nn.Sequential(nn.Conv2d(3, 4, 3), Fickle()), torch.randn(2, 3, 8, 8), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lies", [lambda y: y + 1, lambda y: y * np.nan], ids=["wrong", "NaN"])
def test_export_runs_the_engine(lies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a model that the engine computes wrongly is written without a word, or
    nobody learns which layer is at fault."""
    model, x = network("vgg")
    graph = capture(model.float(), x.float())
    third = graph.nodes[2]

    def broken(data: bytes, inputs, precision: str = "fast"):
        outputs, kernels = run_bytes(data, inputs, precision)
        values = read_bytes(data, "model")[0].outputs
        late = values.index(third.output) if third.output in values else 0
        return [lies(y) if i >= late else y for i, y in enumerate(outputs)], kernels

    monkeypatch.setattr(export_module, "run_bytes", broken)
    words = rf"the engine does not compute .* from node '{third.name}' on \(conv2d by \w+/\w+"
    with pytest.raises(Error, match=words):
        export(model, x.float(), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_export_allows_winograd_its_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a network that is sensitive to rounding cannot be exported at all, although
    precision="strict" computes it well; or Winograd's method may be as wrong as it likes."""
    model, x = network("vgg")

    def rounded(error: float):
        def run(data: bytes, inputs, precision: str = "fast"):
            outputs, kernels = run_bytes(data, inputs, precision)
            return [y * (1 + error * (precision == "fast")) for y in outputs], kernels

        return run

    monkeypatch.setattr(export_module, "run_bytes", rounded(1e-3))
    export(model.float(), x.float(), tmp_path / "m")
    monkeypatch.setattr(export_module, "run_bytes", rounded(3e-2))
    with pytest.raises(Error, match="the engine does not compute"):
        export(model, x.float(), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    """If this fails, an unsupported model costs the user the file that was there before."""

    class Sorted(nn.Module):
        def forward(self, x):
            return x.sort(1)[0]

    path = tmp_path / "m"
    model, x = network("vgg")
    export(model, x, path)
    before = path.read_bytes()
    with pytest.raises(UnsupportedOperator):
        export(nn.Sequential(model, Sorted()), x, path)
    assert path.read_bytes() == before


def test_capture_leaves_the_model_alone() -> None:
    """If this fails, exporting changes the weights of the model that is exported."""
    model, x = network("resnet_basic")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    capture(model, x)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_half_precision_models() -> None:
    """If this fails, a model trained in bfloat16 cannot be exported."""
    model, x = network("vgg")
    graph = capture(model.bfloat16(), x.bfloat16())
    assert graph.nodes[0].weight.dtype == np.float32


def test_to_torch_suits_peers() -> None:
    """If this fails, the dense peer of a benchmark cannot run channels-last or be exported."""
    model, x, expected = prepared("resnet_basic", 0.3)
    twin = to_torch(capture(model.float(), x.float()))
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    images = x.float().to(memory_format=torch.channels_last)
    with torch.no_grad():
        found = twin.to(memory_format=torch.channels_last)(images)
    assert relative(found.double(), expected) <= 1e-5
    torch.export.export(twin, (x.float(),))
