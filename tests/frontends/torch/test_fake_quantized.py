"""Models that torch.ao and NNCF have quantised become integers, with the numbers that they had."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization as ao
from torch.nn import functional

import kernelprune as kp
from kernelprune.errors import Error, QuantizationWarning
from kernelprune.graph.ir import Graph

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*reduce_range.*:UserWarning"),
]
SHAPE = (3, 10, 10)
# Share of the outputs' bytes that may be another one, and by how much: float32 sums of torch may
# lie on the other side of the border between two bytes, and layers behind them hand that on.
OTHERS, STEPS = 0.02, 1


class Blocks(nn.Module):
    """Convolution, batch norm and ReLU; a depthwise one; a residual sum; an SE gate; a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.last = nn.Conv2d(8, 6, 1)
        self.relu = nn.ReLU()
        self.relu2 = nn.ReLU()
        self.relu3 = nn.ReLU()
        self.gate = nn.Sigmoid()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.add = nn.quantized.FloatFunctional()
        self.mul = nn.quantized.FloatFunctional()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.norm(self.conv(x)))
        y = self.relu2(self.add.add(self.norm2(self.depthwise(y)), y))
        y = functional.max_pool2d(y, 2)
        gate = self.gate(self.excite(self.relu3(self.squeeze(self.pool(y)))))
        return self.last(self.mul.mul(y, gate))


class Staged(nn.Module):
    """The same between the stubs that torch.ao's eager mode wants."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.body, self.dequant = ao.QuantStub(), Blocks(), ao.DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dequant(self.body(self.quant(x)))


def images(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def measured(model: nn.Module) -> nn.Module:
    """After a few batches of training, without a step; in eval mode."""
    for seed in range(3):
        model(images(16, seed + 2))
    return model.eval()


def by_fx(backend: str) -> nn.Module:
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    torch.manual_seed(0)
    mapping = ao.get_default_qat_qconfig_mapping(backend)
    return measured(prepare_qat_fx(Blocks().train(), mapping, (images(2),)))


def by_eager() -> nn.Module:
    torch.manual_seed(0)
    model = Staged().train()
    model.body.pool = nn.Sequential(model.body.pool, ao.QuantStub())  # eager mode rounds no means
    model.qconfig = ao.get_default_qat_qconfig("fbgemm")
    body = [["conv", "norm", "relu"], ["depthwise", "norm2"], ["squeeze", "relu3"]]
    ao.fuse_modules_qat(model.body, body, inplace=True)
    return measured(ao.prepare_qat(model))


class Decomposed(nn.Module):
    """As torch.export's quantisation (PT2E) leaves it: signed bytes, and weights that are some."""

    def __init__(self) -> None:
        super().__init__()
        import torch.ao.quantization.fx._decomposed  # defines the operators

        generator = torch.Generator().manual_seed(0)
        for name, shape in {
            "first": (8, 3, 3, 3),
            "middle": (8, 1, 3, 3),
            "last": (6, 8, 1, 1),
        }.items():
            weight = torch.randint(-127, 128, shape, generator=generator, dtype=torch.int8)
            self.register_buffer(name, weight)
            self.register_buffer(f"{name}_scale", 0.004 * torch.rand(shape[0], generator=generator))
            self.register_buffer(f"{name}_zero", torch.zeros(shape[0], dtype=torch.int64))
            self.register_buffer(f"{name}_bias", torch.randn(shape[0], generator=generator))

    def weight(self, name: str) -> torch.Tensor:
        weight, scale, zero = (getattr(self, name + end) for end in ("", "_scale", "_zero"))
        operators = torch.ops.quantized_decomposed
        return operators.dequantize_per_channel(weight, scale, zero, 0, -127, 127, torch.int8)

    def rounded(self, x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
        operators, kind = torch.ops.quantized_decomposed, (scale, zero, -128, 127, torch.int8)
        return operators.dequantize_per_tensor(operators.quantize_per_tensor(x, *kind), *kind)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.rounded(x, 0.03, 5)
        y = functional.conv2d(x, self.weight("first"), self.first_bias, padding=1).relu()
        y = self.rounded(y, 0.02, -128)
        z = functional.conv2d(y, self.weight("middle"), self.middle_bias, padding=1, groups=8)
        y = self.rounded(functional.relu(self.rounded(z, 0.03, 1) + y), 0.03, -128)
        y = functional.conv2d(functional.max_pool2d(y, 2), self.weight("last"), self.last_bias)
        return self.rounded(y, 0.05, 3)


def by_nncf(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    nncf = pytest.importorskip("nncf")
    from nncf.torch.quantization import quantize_functions
    from nncf.torch.quantization.reference import ReferenceBackendType, ReferenceQuantize

    class Plain:
        """NNCF's own definition, in place of the extension that it would compile."""

        @staticmethod
        def get(name: str) -> Callable[..., torch.Tensor]:
            return ReferenceQuantize(ReferenceBackendType.TORCH).forward

    monkeypatch.setattr(quantize_functions, "QuantizedFunctionsCPU", Plain)
    torch.manual_seed(0)
    model = measured(Blocks().train())
    data = nncf.Dataset([images(8, seed + 2) for seed in range(2)])
    return nncf.quantize(model, data, subset_size=2, fast_bias_correction=True)


def check(
    model: nn.Module, path: Path, layers: int = 5, steps_of_output: float | None = None
) -> Graph:
    """The graph of the file, whose outputs by the engine are the model's; ``layers``: of integers,
    at least."""
    x = images(8, seed=9)
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantizationWarning)
        graph = kp.export(model, x, path)
    model.apply(ao.disable_observer)
    with torch.no_grad():
        want = model(x).numpy()
    have = kp.Engine(path).run(x.numpy())
    if steps_of_output is None:
        last = graph.producer(graph.outputs[0])
        assert last is not None and last.quantization is not None
        steps_of_output = last.quantization.scale
    steps = np.rint(np.abs(want - have) / steps_of_output)
    assert steps.max() <= STEPS
    assert (steps > 0).mean() <= OTHERS
    assert sum(node.weight_scale is not None for node in graph.nodes) >= layers
    return graph


@pytest.mark.parametrize("backend", ["qnnpack", "x86"])
def test_torch_ao_by_fx(backend: str, tmp_path: Path) -> None:
    """If this fails, a network of torch.ao's FX mode is computed in float32 or gives other numbers:
    weights of -128, or (x86) channels of weights with a zero point and values of 7 bits."""
    graph = check(by_fx(backend), tmp_path / "model.safetensors")
    assert any(node.name.endswith(".rest") for node in graph.nodes)  # of -128
    assert all(node.quantization is not None for node in graph.nodes if node.rule.is_sum)


def test_torch_ao_by_eager_mode(tmp_path: Path) -> None:
    """If this fails, modules with hooks that round are not recognised."""
    check(by_eager(), tmp_path / "model.safetensors")


def test_torch_export_quantised(tmp_path: Path) -> None:
    """If this fails, pairs of quantise and dequantise operators are not recognised, or signed bytes
    are taken for unsigned ones."""
    graph = check(Decomposed().eval(), tmp_path / "model.safetensors", layers=3)
    assert graph.inputs[0].quantization is not None


def test_nncf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, NNCF's quantisers are traced into their insides, or their ranges are read in
    another way than they round."""
    model = by_nncf(monkeypatch)
    spread = float(model(images(8, seed=9)).detach().std())
    # NNCF leaves an SE gate in float32 by itself.
    check(model, tmp_path / "model.safetensors", 3, spread / 20)


def test_ranges_stay_as_they_are(tmp_path: Path) -> None:
    """If this fails, the images of an export move the ranges that the training has found, or a
    module keeps what the export has put in its place."""
    model = by_fx("qnnpack")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kp.export(model, 3 * images(4), tmp_path / "model.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any("forward" in vars(module) for module in model.modules() if module is not model)


# ---------------------------------------------------------------- operators


class Rounded(nn.Module):
    """One layer whose input, weight and output are rounded as a test says."""

    def __init__(
        self,
        low: int = 0,
        high: int = 255,
        scale: float = 0.05,
        zero: int = 100,
        weight: tuple[int, int, int] | None = (-127, 127, 0),
        first: bool = True,
    ):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3)
        self.levels, self.scale, self.zero = (low, high), scale, zero
        self.weight_levels, self.first = weight, first
        top = self.conv.weight.detach().abs().amax((1, 2, 3))
        self.register_buffer("steps", top / (127 if weight is None else weight[1]))

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, *self.levels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.rounded(x) if self.first else x
        weight = self.conv.weight
        if self.weight_levels is not None:
            low, high, zero = self.weight_levels
            zeros = torch.full((5,), zero, dtype=torch.int32)
            weight = torch.fake_quantize_per_channel_affine(weight, self.steps, zeros, 0, low, high)
        return functional.conv2d(x, weight, self.conv.bias)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"low": -128, "high": 127, "zero": -28},
        {"high": 127, "zero": 60},
        {"high": 15, "zero": 7, "scale": 0.4},
        {"weight": (-7, 7, 0)},
        {"weight": (0, 255, 0)},
    ],
    ids=["bytes", "signed", "7 bits", "4 bits", "4 bits of weights", "unsigned weights"],
)
def test_levels(options: dict, tmp_path: Path) -> None:
    """If this fails, rounded numbers that fit in bytes are not computed exactly: outputs of the one
    layer are sums, which bytes give but for the rounded bias."""
    model, x = Rounded(**options), 3 * images(4)
    graph = kp.export(model, x, tmp_path / "model.safetensors")
    assert any(node.weight_scale is not None for node in graph.nodes)
    have = kp.Engine(tmp_path / "model.safetensors").run(x.numpy())
    half = 0.5 * model.scale * float(model.steps.max())  # of what biases are rounded to
    np.testing.assert_allclose(have, model(x).detach().numpy(), rtol=1e-5, atol=half + 1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"high": 1023, "scale": 0.01, "zero": 500}, "levels"),
        ({"weight": (-2000, 2000, 0)}, "no bytes"),
        ({"first": False}, "its input is not"),
    ],
    ids=["1024 levels", "12 bits of weights", "input of numbers"],
)
def test_what_bytes_cannot_express(options: dict, said: str, tmp_path: Path) -> None:
    """If this fails, a layer gets other numbers without a word, or the warning is no help."""
    model, x = Rounded(**options), images(4)
    with pytest.warns(QuantizationWarning, match=said):
        graph = kp.export(model, x, tmp_path / "model.safetensors")
    assert all(node.weight_scale is None for node in graph.nodes)
    have = kp.Engine(tmp_path / "model.safetensors").run(x.numpy())
    want = model(x).detach().numpy()
    assert np.linalg.norm(have - want) <= 1e-2 * np.linalg.norm(want)


def test_is_not_quantised_again() -> None:
    """If this fails, bytes that were trained for are measured anew, and nobody is told."""
    with pytest.raises(Error, match="quantised already"):
        kp.quantize(Rounded(), images(4))


def test_check_tells_of_integers() -> None:
    """If this fails, kernelprune.check calls such a model impossible, or a float32 one."""
    found = kp.check(Rounded(), images(2))
    assert found.fault is None and not found.unsupported
    assert found.integer_layers == 1
