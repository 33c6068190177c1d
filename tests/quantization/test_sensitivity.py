"""Which layers suffer, and leaving those in float32."""

from __future__ import annotations

import json

import pytest
from torch import nn

import kernelprune as kp
from kernelprune import Error
from kernelprune.format import Graph

COARSE = {"per_channel": False, "bias_correction": False}


def broken(task) -> Graph:
    """The trained network with one channel between conv1 and conv2 so large that, with one scale
    for all, the weights of conv1 and the inputs of conv2 are lost."""
    graph = kp.frontends.torch.capture(task.model, task.images[:1])
    node = graph.node("conv1")
    node.weight[0] *= 3000
    node.bias[0] *= 3000
    graph.node("conv2").weight[:, 0] /= 3000
    return graph


def test_finds_the_broken_layers(task) -> None:
    """If this fails, the user is told to leave the wrong layers in float32."""
    for evaluate in (None, task.accuracy):
        found = kp.quantize_sensitivity(broken(task), task.images[:64], evaluate, **COARSE)
        names = list(found.values)
        assert set(names[:2]) == {"conv1", "conv2"} and set(names[2:]) == {"stem", "conv3", "head"}
        assert list(found.values.values()) == sorted(found.values.values())
        assert found.whole >= found.values["head"] - 0.01
        lines = str(found).splitlines()
        assert lines[1].startswith(names[0]) and lines[-1].startswith("none in int8")
        assert json.loads(json.dumps(found.to_dict()))["values"] == found.values


def test_max_drop_leaves_as_few_as_needed(task) -> None:
    """If this fails, the accuracy is not kept, or layers stay float32 for nothing."""
    graph, images = broken(task), task.images[:64]
    exact = task.accuracy(task.model)
    calls = []

    def evaluate(model: nn.Module) -> float:
        calls.append(model)
        return task.accuracy(model)

    plain = kp.quantize(graph, images, evaluate=evaluate, **COARSE)
    assert plain.report.evaluated[1] < exact - 0.1 and len(calls) == 2
    kept = kp.quantize(graph, images, evaluate=evaluate, max_drop=0.02, **COARSE)
    floats = {layer.name for layer in kept.report.layers if layer.precision == "float32"}
    assert floats == {"conv1", "conv2"}
    before, after = kept.report.evaluated
    assert before == pytest.approx(exact) and after >= before - 0.02
    assert after == task.accuracy(kept)
    assert "evaluate:" in str(kept.report) and "3 of 5 layers" in str(kept.report)


def test_max_drop_without_need(task) -> None:
    """If this fails, a network that keeps its accuracy pays for a search."""
    calls = []

    def evaluate(model: nn.Module) -> float:
        calls.append(model)
        return task.accuracy(model)

    found = kp.quantize(task.model, task.images[:64], evaluate=evaluate, max_drop=0.01)
    assert len(calls) == 2
    assert all(layer.precision != "float32" for layer in found.report.layers)


def test_max_drop_that_cannot_be_kept(task) -> None:
    """If this fails, a model is given back that drops further than was asked."""
    values = iter([1.0] + [0.0] * 10)
    with pytest.raises(Error, match="max_drop=0.1: with all layers but"):
        kp.quantize(task.model, task.images[:64], evaluate=lambda model: next(values), max_drop=0.1)
    with pytest.raises(Error, match="needs evaluate="):
        kp.quantize(task.model, task.images[:64], max_drop=0.1)
    with pytest.raises(Error, match="max_drop=-1"):
        kp.quantize(task.model, task.images[:64], evaluate=task.accuracy, max_drop=-1)
