"""Loaded ONNX files are torch modules like others: pruned, trained, compacted, exported."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models.small_zoo import BUILDERS, awake, build, numbers
from onnx import helper
from onnx_files import by_runtime, constant, model_of, saved
from torch import nn

import kernelprune as kp
from kernelprune.graph.ir import Graph


def exported(model: nn.Module, x: torch.Tensor, path: Path, **options: Any) -> Path:
    """What torch's own exporter writes, batch norms kept."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (x,), str(path), dynamo=False, do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE, opset_version=17, **options,
        )  # fmt: skip
    return path


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", BUILDERS)
def test_zoo_by_torch(name: str, tmp_path: Path) -> None:
    """If this fails, what torch exports of a network is not read, or computes something else for a
    batch that the file does not have."""
    model = awake(build(name)).eval()
    path = exported(model, torch.randn(1, 3, 32, 32), tmp_path / "net.onnx")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert relative(numbers(kp.load_onnx(path)(x)), numbers(model(x))) < 1e-4


def test_modules_are_those_of_the_model(tmp_path: Path) -> None:
    """If this fails, layers have lost their names or their classes, by which pruning finds them, or
    do not train."""
    model = build("resnet").eval()
    x = torch.randn(4, 3, 32, 32)
    loaded = kp.load_onnx(exported(model, x, tmp_path / "net.onnx"))
    own = {n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))}
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    found = {name: type(m) for name, m in loaded.named_modules() if isinstance(m, kinds)}
    assert own <= set(found)
    loaded.train()
    before = copy.deepcopy(loaded.state_dict())
    optimiser = torch.optim.SGD(loaded.parameters(), 0.1)
    nn.functional.cross_entropy(loaded(x), torch.arange(4)).backward()
    optimiser.step()
    changed = {n for n, t in loaded.state_dict().items() if not torch.equal(t, before[n])}
    assert {f"{name}.weight" for name in own} <= changed
    assert any("running_mean" in name for name in changed)


def test_prune_compact_export(tmp_path: Path) -> None:
    """If this fails, a network that came as an ONNX file cannot be pruned and compacted, or its
    model file computes something else."""
    x = torch.randn(2, 3, 32, 32)
    model = kp.load_onnx(exported(build("vgg").eval(), x, tmp_path / "net.onnx"))
    kp.prune_connections(model, density=0.1, x=x)
    small = kp.compact(model, x)
    count = [sum(p.numel() for p in m.parameters()) for m in (model, small)]
    assert count[1] < count[0]
    graph = kp.export(small, x, tmp_path / "net.safetensors")
    assert graph.density() < 0.8
    with torch.no_grad():
        wanted = model.eval()(x)
    found = torch.from_numpy(kp.Engine(tmp_path / "net.safetensors").run(x.numpy()))
    assert relative(found, wanted) < 1e-4


def test_synaptic_strength(tmp_path: Path) -> None:
    """If this fails, the batch norms of a loaded network are not found by Synaptic Strength."""
    x = torch.randn(2, 3, 32, 32)
    loaded = kp.load_onnx(exported(build("vgg").eval(), x, tmp_path / "net.onnx"))
    synaptic = kp.SynapticStrength(loaded, x)
    assert float(synaptic.penalty().detach()) > 0


def test_zeros_are_dropped_connections(tmp_path: Path) -> None:
    """If this fails, a network that another tool has pruned gains nothing."""
    weight = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)
    weight[:, 1:] = 0
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    path = saved(model_of([node], {"x": (1, 4, 5, 5)}, constants=[constant(weight, "w")]),
                 tmp_path / "net.onnx")  # fmt: skip
    graph: Graph = kp.export(
        kp.load_onnx(path), torch.randn(1, 4, 5, 5), tmp_path / "net.safetensors"
    )
    assert graph.kept_connections() == 8


def test_free_sizes_and_several_outputs(tmp_path: Path) -> None:
    """If this fails, a size that the file leaves free cannot be said, or outputs lose their
    names."""
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
    ]
    model = model_of(nodes, {"x": ("n", 3, "h", "w")}, ["positive", "mean"])
    path = saved(model, tmp_path / "net.onnx")
    x = torch.randn(2, 3, 6, 4)
    found = kp.load_onnx(path, sizes=(3, 6, 4))(x)
    assert list(found) == ["positive", "mean"]
    for have, want in zip(found.values(), by_runtime(model, [x.numpy()]), strict=True):
        np.testing.assert_allclose(have.numpy(), want, rtol=1e-6)
    with pytest.raises(kp.Error, match="say its size per image"):
        kp.load_onnx(path)
    with pytest.raises(kp.ShapeError, match="has 3 sides per image"):
        kp.load_onnx(path, sizes=(6, 4))
