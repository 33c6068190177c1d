"""export(dynamic=...): files whose maps may have any size, or one error that names the node."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import kernelprune as kp
from kernelprune.errors import Error, ShapeError
from kernelprune.format.reader import read

torch.set_num_threads(1)  # for tensors this small more threads only cost
BOTH = ("height", "width")


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Residual(nn.Module):
    """A small ResNet with squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.down = conv(3, 8, 2), conv(8, 8), conv(8, 12, 2)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = functional.max_pool2d(self.stem(x), 3, 2, 1)
        x = x + self.body(x)
        x = self.down(x * self.gate(x))
        return self.head(x.mean((2, 3)))


class UNet(nn.Module):
    """Upsampled to the size of the skip."""

    def __init__(self, mode: str = "nearest", **options) -> None:
        super().__init__()
        self.top, self.low, self.last = conv(3, 6), conv(6, 8), conv(14, 4)
        self.options = {"mode": mode, **options}

    def forward(self, x):
        skip = self.top(x)
        low = self.low(functional.max_pool2d(skip, 2))
        low = functional.interpolate(low, size=skip.shape[2:], **self.options)
        return self.last(torch.cat([low, skip], 1))


class Tokens(nn.Module):
    """A reshape to rows of 6 x 8 pixels, which only one size has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 4), nn.Linear(48, 2)

    def forward(self, x):
        return self.head(self.stem(x).reshape(-1, 4, 48))


class Positions(nn.Module):
    """Something learnt for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.table = conv(3, 4), nn.Parameter(torch.randn(1, 4, 6, 8))

    def forward(self, x):
        return self.stem(x) + self.table


def exported(model: nn.Module, folder: Path, size=(16, 24), dynamic=BOTH) -> Path:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    path = folder / "model.safetensors"
    kp.export(model.eval(), torch.randn(2, 3, *size), path, dynamic=dynamic)
    return path


def check_sizes(model: nn.Module, engine: kp.Engine, sizes: list[tuple[int, int]]) -> None:
    for height, width in sizes:
        x = torch.randn(2, 3, height, width)
        with torch.no_grad():
            wanted = model(x)
        found = engine.run(x)
        assert found.shape == wanted.shape
        error = (found - wanted).norm() / wanted.norm()
        assert error < 1e-5, f"{height}x{width}: {error:.2g}"


def test_residual_network(tmp_path: Path) -> None:
    """If this fails, a classifier that takes any image in torch takes one size here, or gives other
    scores at another size."""
    model = Residual()
    engine = kp.Engine(exported(model, tmp_path))
    assert engine.free_sizes == BOTH
    check_sizes(model, engine, [(16, 24), (17, 31), (1, 1), (40, 8), (7, 64)])


@pytest.mark.parametrize(
    "options", [{}, {"mode": "bilinear", "align_corners": False}, {"mode": "bicubic"}]
)
def test_upsampled_to_a_skip(options: dict, tmp_path: Path) -> None:
    """If this fails, upsampling to the size of another map keeps the example's size, which is wrong
    at every other, or the model is refused."""
    model = UNet(**options)
    path = exported(model, tmp_path)
    resize = next(node for node in read(path)[0].nodes if node.op == "resize")
    assert resize.params["scale"] == [2, 2]
    engine = kp.Engine(path)
    check_sizes(model, engine, [(16, 24), (8, 40), (2, 2), (34, 6)])
    with pytest.raises(ShapeError, match="give multiples of 2"):
        engine.run(torch.randn(1, 3, 15, 24))


@pytest.mark.parametrize(("dynamic", "other"), [("height", (20, 24)), (("width",), (16, 40))])
def test_one_side(dynamic, other: tuple[int, int], tmp_path: Path) -> None:
    """If this fails, the side that was not named is free too, or the one that was is not."""
    model = Residual()
    engine = kp.Engine(exported(model, tmp_path, dynamic=dynamic))
    assert engine.free_sizes == ((dynamic,) if isinstance(dynamic, str) else dynamic)
    check_sizes(model, engine, [(16, 24), other])
    with pytest.raises(ShapeError, match="may be"):
        engine.run(torch.randn(1, 3, 20, 40))


@pytest.mark.parametrize("model", [Tokens, Positions])
def test_models_of_one_size_are_refused(model: type[nn.Module], tmp_path: Path) -> None:
    """If this fails, a file claims sizes that the model does not have, or the user is not told what
    keeps it to one."""
    with pytest.raises(Error) as caught:
        exported(model(), tmp_path, size=(6, 8))
    assert not (tmp_path / "model.safetensors").exists()
    message = str(caught.value)
    assert "size" in message and "\n" not in message
    # Without dynamic it is fine.
    exported(model(), tmp_path, size=(6, 8), dynamic=())


class Half(nn.Module):
    """Half of the rows, however many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 4)

    def forward(self, x):
        x = self.stem(x)
        return x[:, :, : x.shape[2] // 2]


class Rows(Half):
    """As many tokens as pixels."""

    def forward(self, x):
        x = self.stem(x)
        return x.reshape(-1, 4, x.shape[2] * x.shape[3]).softmax(2)


@pytest.mark.parametrize(("model", "op"), [(Half, "slice"), (Rows, "reshape")])
def test_the_node_of_one_size_is_named(model: type[nn.Module], op: str, tmp_path: Path) -> None:
    """If this fails, the user has to find by himself which of a hundred layers is in the way."""
    with pytest.raises(Error, match=rf"node '\S+' \({op}\)"):
        exported(model(), tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_resized_to_one_size(tmp_path: Path) -> None:
    """If this fails, a model that brings any map to 12 x 12 pixels is refused, or makes it a factor
    of the example's size."""
    model = nn.Sequential(conv(3, 4), nn.Upsample(size=(12, 12)), conv(4, 4))
    engine = kp.Engine(exported(model, tmp_path))
    check_sizes(model, engine, [(16, 24), (6, 6), (5, 48)])


@pytest.mark.parametrize("dynamic", ["depth", ("height", "batch"), ("height", 3)])
def test_other_words_are_refused(dynamic, tmp_path: Path) -> None:
    """If this fails, a typing error gives a file of fixed sizes."""
    with pytest.raises(Error, match="'height' and 'width'"):
        exported(Residual(), tmp_path, dynamic=dynamic)


def test_a_model_of_vectors_is_refused(tmp_path: Path) -> None:
    """If this fails, a file has free sides where there are none."""
    with pytest.raises(Error, match="one input"):
        kp.export(nn.Linear(4, 2), torch.randn(1, 4), tmp_path / "m", dynamic=BOTH)
