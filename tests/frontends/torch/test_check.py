"""check, and what pruning and export say of operators that the engine lacks."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import kernelprune as kp
from kernelprune import UnsupportedOperator, UnsupportedWarning
from kernelprune.frontends.refusal import Refusal, listed
from kernelprune.frontends.torch.export import TOLERANCE, _in_float64, difference

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Odd(nn.Module):
    def forward(self, x):
        return torch.special.i0(x)


class Model(nn.Module):
    """``odd``: how many modules it has that the engine cannot run."""

    def __init__(self, odd: int = 0):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.odd = nn.ModuleList([Odd() for _ in range(odd)])
        self.third, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x):
        x = self.second(self.first(x).relu())
        for odd in self.odd:
            x = odd(x)
        if self.odd:
            x = torch.special.i1(x)
        return {"scores": self.head(self.third(x).mean((2, 3)))}


def test_model_that_runs() -> None:
    """If this fails, a model that can be exported is said not to run, or its size is wrong."""
    check = kp.check(nn.DataParallel(Model()), X)
    assert check and not check.unsupported and check.fault is None
    assert check.operators == {"conv2d": 3, "global_avg_pool": 1, "flatten": 1, "linear": 1}
    assert check.connections == 24 + 64 + 64 + 40
    assert check.inputs == {"x": (3, 8, 8)} and check.outputs == {"scores": (5,)}
    assert "Model: the engine will run" in str(check) and "3 conv2d" in str(check)


def test_model_that_does_not() -> None:
    """If this fails, a user learns of one unsupported operator after another, each after a
    training."""
    model = Model(6).train()
    check = kp.check(model, X)
    assert not check and model.training
    assert [refusal.operator for refusal in check.unsupported] == ["aten::special_i0"] * 6 + [
        "aten::special_i1"
    ]
    first = check.unsupported[0]
    assert first.module == "odd.0" and first.source.endswith("return torch.special.i0(x)")
    text = str(check)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "aten::special_i0, 6 times, in 'odd.0'" in text and "and 2 more" in text
    assert "torch.special.i1(x)" in text


def test_export_lists_all(tmp_path) -> None:
    """If this fails, export stops at the first operator, and the user mends them one by one."""
    with pytest.raises(UnsupportedOperator) as caught:
        kp.export(Model(2), X, tmp_path / "model.safetensors")
    head, *lines = str(caught.value).splitlines()
    assert head.startswith("3 calls of 2 operators: each has no counterpart in the engine")
    assert "aten::special_i0, 2 calls: in 'odd.0', 'odd.1' (" in lines[0]
    assert "aten::special_i1, 1 call: in the model itself (" in lines[1] and len(lines) == 2
    assert not list(tmp_path.iterdir())


def test_long_lists_are_cut() -> None:
    """If this fails, a transformer of a hundred kinds of operators fills a screen."""
    many = [Refusal(f"aten::op{i % 50}", f"op_{i}", f"m{i}", "a.py:1: x", "") for i in range(100)]
    lines = listed(many).splitlines()
    assert len(lines) == 20 and lines[-1] == "  and 32 more"
    assert lines[1].startswith("  aten::op0, 2 calls: ")
    reasons = listed([Refusal("aten::a", "a", "", "a.py:1", why) for why in ("too wide", "odd")])
    assert reasons.splitlines()[1:] == [
        "  aten::a, 1 call: too wide; in the model itself (a.py:1)",
        "  aten::a, 1 call: odd; in the model itself (a.py:1)",
    ]
    nodes = listed([Refusal("Det", name, None, "net.onnx", "odd") for name in ("n1", "n2")])
    assert nodes.splitlines()[1:] == ["  Det, 2 calls: in 'n1', 'n2' (net.onnx)"]


def test_fault_of_a_file() -> None:
    """If this fails, check says yes to a model that the writer refuses."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1))
    model[0].weight.data[:] = torch.inf
    check = kp.check(model, X)
    assert not check and "not finite" in str(check)


def pruned_connections(model: nn.Module) -> None:
    kp.prune_connections(model, density=0.5, x=X)


def pruned_channels(model: nn.Module) -> None:
    kp.prune_channels(model, X, ratio=0.5)


def strengths(model: nn.Module) -> None:
    kp.SynapticStrength(model, X)


def discrimination(model: nn.Module) -> None:
    labels = torch.zeros(2, dtype=torch.long)
    kp.DiscriminationAware(model, X, [(X, labels)], discrimination=0)


METHODS = (pruned_connections, pruned_channels, strengths, discrimination)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_pruning_warns(method) -> None:
    """If this fails, somebody trains and prunes a model for days that no file can hold, or cannot
    prune one that he wants to keep in torch."""
    with pytest.warns(UnsupportedWarning, match="special_i0, aten::special_i1, .*'odd.0'") as found:
        method(Model(2))
    assert found[0].filename == __file__
    assert "kernelprune.check(model, x)" in str(found[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnsupportedWarning)
        method(Model())


class Cancelling(nn.Module):
    """Loses digits of float32: the difference of two large, nearly equal maps."""

    def __init__(self, size: float):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.a.bias.data += size
        self.b.bias.data = -self.a.bias.data
        self.b.weight.data = torch.randn(self.a.weight.shape) / size - self.a.weight.data

    def forward(self, x):
        return self.a(x).relu() + self.b(x)


def test_export_of_a_model_that_float32_cannot_hold(tmp_path) -> None:
    """If this fails, a model whose own float32 is a few digits off cannot be exported, though the
    engine is as right as torch is."""
    model, path = Cancelling(100.0), tmp_path / "model.safetensors"
    exact, limit = _in_float64(model, (X,))
    assert limit > TOLERANCE
    kp.export(model, X, path)
    found = torch.from_numpy(kp.Engine(path).run(X.numpy())).double()
    assert difference(exact, [found]) <= limit


def test_float32_excuses_no_fault() -> None:
    """If this fails, export takes a wrong result for one of rounding."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert _in_float64(model, (X,))[1] == TOLERANCE
    assert _in_float64(Cancelling(1e6), (X,))[1] <= 1e-2
