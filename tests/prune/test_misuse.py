"""What a stranger may try: a wrong argument is one clear error, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from prune.networks import Chain
from torch import nn

import kernelprune as kp
from kernelprune import prune
from kernelprune.errors import Error

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
LOADER = [(X, torch.arange(4) % 5)]
NAN, INF = float("nan"), float("inf")


def chain() -> nn.Module:
    torch.manual_seed(1)
    return Chain()


@pytest.fixture(scope="module")
def strength() -> kp.SynapticStrength:
    return kp.SynapticStrength(chain(), X)


@pytest.mark.parametrize("wrong", [0, -0.5, 1.5, NAN, INF, "0.5", True])
def test_densities(strength: kp.SynapticStrength, wrong: object) -> None:
    """If this fails, a share that is none is taken in silence, or ends in Python's traceback."""
    calls: list[Callable[[], object]] = [
        lambda: strength.plan(density=wrong),
        lambda: strength.plan(macs=wrong),
        lambda: kp.prune_connections(chain(), density=wrong),
        lambda: prune.cubic_densities(wrong, 3),
        lambda: prune.sensitivity(chain(), lambda model: 1.0, densities=(wrong,)),
    ]
    for call in calls if wrong is not True else calls[:3]:
        with pytest.raises(Error, match="must be a number above 0 and at most 1"):
            call()


def test_density_of_a_time_limit(strength: kp.SynapticStrength, monkeypatch) -> None:
    """If this fails, a time limit lets through what is refused without one."""
    monkeypatch.setattr(
        "kernelprune.prune.synaptic.engine_measure",
        lambda *_, **__: lambda masks: ({name: 1.0 for name in masks}, 1.0),
    )
    for wrong in ({"density": NAN}, {"density": 0}, {"batch": 0}, {"latency_ms": INF}):
        with pytest.raises(Error, match=next(iter(wrong))):
            strength.plan(**{"latency_ms": 3.0, **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"penalty": -1}, {"penalty": NAN}, {"penalty": "small"}, {"scope": "local"},
        {"ignore": "conv9*"}, {"include": ["nothing"]}, {"ignore": [3]},
    ],
    ids=str,
)  # fmt: skip
def test_options_of_synaptic_strength(wrong: dict) -> None:
    """If this fails, an option that is none is found after the training, or never."""
    model = chain()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(Error):
        kp.SynapticStrength(model, X, **wrong)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("wrong", [-1, NAN, INF, 0.5, "2", 0])
@pytest.mark.parametrize(
    "option",
    ["samples", "channels_per_step", "losses", "stage_epochs", "select_epochs", "discrimination",
     "stage_learning_rate", "select_learning_rate", "momentum", "weight_decay"],
)  # fmt: skip
def test_options_of_dcp(option: str, wrong: object) -> None:
    """If this fails, an option that is none is found when the first layer is chosen, or never."""
    right = {
        "losses": (0,),
        "select_epochs": (0,),
        "momentum": (0, 0.5),
        "discrimination": (0, 0.5),
    }
    rates = (0, 0.5) if option.endswith(("rate", "decay")) else ()
    if wrong in right.get(option, rates):
        kp.DiscriminationAware(chain(), X, LOADER, **{option: wrong})
        return
    with pytest.raises(Error, match=f"{option}={wrong!r}: must be a"):
        kp.DiscriminationAware(chain(), X, LOADER, **{option: wrong}).prune(ratio=0.5)


@pytest.mark.parametrize("ratio", [1, -0.1, NAN, "half"])
def test_ratios(ratio: object) -> None:
    """If this fails, a ratio that is none is taken for one."""
    with pytest.raises(Error, match="ratio="):
        kp.prune_channels(chain(), X, ratio=ratio)
    with pytest.raises(Error, match="ratio="):
        kp.DiscriminationAware(chain(), X, LOADER).prune(ratio=ratio)


@pytest.mark.parametrize(
    "loader",
    [None, 3, [], [(X[:0], torch.zeros(0, dtype=torch.int64))], [X], [(X.numpy(), [1])]],
    ids=["None", "number", "empty", "no images", "no labels", "numpy"],
)
def test_loaders(loader: object) -> None:
    """If this fails, a loader without use ends in a traceback, or in statistics of nothing."""
    model = chain()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(Error, match="loader"):
        kp.prune_connections(model, density=0.5, criterion="taylor", loader=loader)
    with pytest.raises(Error, match="loader"):
        kp.DiscriminationAware(model, X, loader).prune(ratio=0.5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    if loader in (None, 3, []):
        with pytest.raises(Error, match="loader"):
            kp.SynapticStrength(model, X, scale="measured").measure(loader)
        with pytest.raises(Error, match="loader"):
            prune.recalibrate(chain(), loader)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, x: kp.SynapticStrength(model, x),
        lambda model, x: kp.DiscriminationAware(model, x, LOADER),
        lambda model, x: kp.prune_connections(model, density=0.5),
        lambda model, x: kp.prune_channels(model, x, ratio=0.5),
        lambda model, x: prune.sensitivity(model, lambda m: 1.0),
    ],
    ids=["synaptic", "dcp", "connections", "channels", "sensitivity"],
)
def test_models_with_nothing_to_prune(call: Callable) -> None:
    """If this fails, a model without convolutions ends in a traceback, or counts as pruned."""
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    one = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    for model in (flat, one, nn.Sequential()):
        with pytest.raises(Error, match="has no convolution to prune"):
            call(model, X)
    with pytest.raises(Error, match="the model is a str, not a torch.nn.Module"):
        call("model", X)


def test_examples_that_are_no_tensors() -> None:
    """If this fails, an array in place of a tensor ends in a traceback."""
    for wrong in (X.numpy(), "x", None):
        with pytest.raises(Error, match="not a torch.Tensor"):
            kp.SynapticStrength(chain(), wrong)
    with pytest.raises(Error, match="not a torch.nn.Module"):
        kp.compact(None, X)
    with pytest.raises(Error, match="cannot trace Chain"):
        kp.compact(chain(), torch.randn(1, 5, 8, 8))


def test_frozen_models() -> None:
    """If this fails, a model whose parameters do not train ends in autograd's traceback."""
    model = chain().requires_grad_(False)
    with pytest.raises(Error, match="no parameter of the model is trained"):
        kp.DiscriminationAware(model, X, LOADER)
    plan = kp.SynapticStrength(model, X).prune(density=0.5)
    assert plan.prunable_density == 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    """If this fails, small weights in half precision have a norm of 0, or the model no export."""
    exact = chain()
    with torch.no_grad():
        for name in ("conv2", "conv3"):
            exact.get_submodule(name).weight.mul_(0.003)  # squares below the smallest float16
        exact.to(dtype).float()
    for criterion in ("l1", "l2"):
        found = [
            kp.prune_connections(each, density=0.3, criterion=criterion).masks
            for each in (chain_like(exact), chain_like(exact).to(dtype))
        ]
        assert all(torch.equal(mask, found[1][name]) for name, mask in found[0].items())
    model, x = chain_like(exact).to(dtype), X.to(dtype)
    pruner = kp.SynapticStrength(model, x)
    norms = exact.conv2.weight.double().square().sum((2, 3)).sqrt()
    gammas = exact.bn1.weight.double().abs()
    assert torch.allclose(pruner.strengths()["conv2"].double(), gammas * norms, rtol=2e-2)
    pruner.prune(density=0.5)
    plain = pruner.finalize().eval()
    assert {p.dtype for p in plain.parameters()} == {dtype}
    kp.export(kp.compact(plain, x), x, tmp_path / "model.safetensors")
    run = kp.Engine(tmp_path / "model.safetensors").run(x.float())
    expected = plain.float()(x.float()).detach()
    assert float((run - expected).norm()) <= 1e-4 * float(expected.norm())


def chain_like(model: nn.Module) -> nn.Module:
    twin = chain()
    twin.load_state_dict(model.state_dict())
    return twin


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    """If this fails, hours of measuring end in a traceback."""
    pytest.importorskip("matplotlib")
    found = prune.sensitivity(chain(), lambda model: 1.0, densities=(0.5,))
    away = tmp_path / "missing" / "file.png"
    with pytest.raises(Error, match="cannot write the plot"):
        found.plot(away)
    with pytest.raises(Error, match="cannot write the masks"):
        prune.save_masks({"conv2": torch.ones(2, 2, dtype=torch.bool)}, away)
    with pytest.raises(Error, match="cannot write the model"):
        kp.export(chain(), X, away)
