"""kernelprune.quantize from end to end."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from models.small_zoo import BUILDERS
from prune.networks import lived_in
from torch import nn

import kernelprune as kp
from kernelprune import Error, ShapeError
from kernelprune.format import read
from kernelprune.format.writer import to_bytes
from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.graph.quantization import quantizations


def test_accuracy(task) -> None:
    """If this fails, a quantised network does not do what the trained one does."""
    dense = task.accuracy(task.model)
    assert dense > 0.93
    for options in (
        {},
        {"method": "minmax", "bias_correction": False},
        {"method": "percentile", "equalize": True},
        {"per_channel": False, "rounding": "learned"},
    ):
        quantised = kp.quantize(task.model, task.images[:128], **options)
        assert task.accuracy(quantised) >= dense - 0.01, options


def test_pruned_network(task) -> None:
    """If this fails, a dropped connection comes back, or a kept one is written as zeros."""
    kp.prune_connections(task.model, density=0.5, x=task.images[:2], loader=None)
    kp.prune.recalibrate(task.model, [task.images])
    dense = task.accuracy(task.model)
    quantised = kp.quantize(task.model, task.images[:128])
    assert task.accuracy(quantised) >= dense - 0.02
    kept = kp.frontends.torch.capture(task.model, task.images[:2]).kept_connections()
    assert 0.97 * kept <= quantised.graph.kept_connections() <= kept


@pytest.mark.parametrize(
    "name", ["bottleneck", "densenet", "mobilenet_v3", "shufflenet", "convnext"]
)
def test_zoo(name: str, tmp_path: Path) -> None:
    """If this fails, a style of network is quantised wrongly, or its file is another network."""
    torch.manual_seed(0)
    model = lived_in(BUILDERS[name]()).float().eval()
    x = torch.randn(16, 3, 32, 32)
    quantised = kp.quantize(model, x)
    with torch.no_grad():
        want, have = model(x), quantised(x)
    assert (have - want).norm() < 0.04 * want.norm()
    assert all(
        layer.precision == "int8" for layer in quantised.report.layers if layer.op != "input"
    )
    kp.export(quantised, x[:2], tmp_path / "m", note="mine")
    graph, told = read(tmp_path / "m")
    assert torch.equal(GraphModel(graph)(x), have)
    assert told["precision"] == "int8" and told["note"] == "mine"
    assert told["source"] == type(model).__name__
    assert bool(kp.check(quantised, x)) and "int8" in str(kp.check(quantised, x))


def test_everything_that_gives_images(task) -> None:
    """If this fails, a way of giving the images that the documentation names does not work, or
    measures others."""
    images, labels = task.images[:96], task.labels[:96]
    want = to_bytes(kp.quantize(task.model, images).graph)
    halves = [images[:50], images[50:]]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), 48)
    ways = {
        "array": images.numpy(),
        "batches": halves,
        "generator": (batch for batch in halves),
        "arrays": [half.numpy() for half in halves],
        "with labels": [(half, labels[:50]) for half in halves],
        "loader": loader,
        "more than samples": torch.cat([images, 1000 * images]),
    }
    for name, way in ways.items():
        assert to_bytes(kp.quantize(task.model, way, samples=96).graph) == want, name


def test_padding_with_minus_infinity() -> None:
    """If this fails, networks that come from TensorFlow, whose max pools pad on one side, compute
    nothing at all: the scale of their maps is that of the largest number there is."""
    torch.manual_seed(0)
    pad = nn.ConstantPad2d((0, 1, 0, 1), float("-inf"))
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), pad, nn.MaxPool2d(3, 2), nn.Conv2d(8, 8, 3, padding=1)
    ).eval()
    report = kp.quantize(model, torch.randn(16, 3, 12, 12)).report
    assert min(layer.signal_to_noise for layer in report.layers) > 25


def test_several_inputs() -> None:
    """If this fails, a model of two inputs is measured on one."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(2, 4, 3)

        def forward(self, x, y):
            return torch.relu(self.a(x) + self.b(y))

    model = Two().eval()
    x, y = torch.randn(8, 3, 8, 8), 5 * torch.randn(8, 2, 8, 8)
    for way in ((x, y), [(x, y)], [(x[:4], y[:4]), (x[4:], y[4:])]):
        quantised = kp.quantize(model, way)
        assert (quantised(x, y) - model(x, y)).norm() < 0.03 * model(x, y).norm()


def test_bytes_as_input() -> None:
    """If this fails, images that are given as bytes are rounded once more."""

    class FromBytes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x.float())

    x = torch.randint(0, 200, (8, 3, 8, 8), dtype=torch.uint8)
    quantised = kp.quantize(FromBytes().eval(), x)
    (value,) = quantised.graph.inputs
    assert (value.dtype, value.quantization.scale, value.quantization.zero_point) == ("u8", 1, 0)


def test_from_a_file(task, tmp_path: Path) -> None:
    """If this fails, a model file cannot be quantised, or becomes another one than its model."""
    kp.export(task.model, task.images[:2], tmp_path / "m")
    want = kp.quantize(task.model, task.images[:64])
    for model in (tmp_path / "m", str(tmp_path / "m"), read(tmp_path / "m")[0]):
        found = kp.quantize(model, task.images[:64])
        assert (found(task.images) - want(task.images)).norm() < 0.01 * want(task.images).norm()
    assert quantizations(read(tmp_path / "m")[0]) == {}


def test_relu_has_zero_point_0(task) -> None:
    """If this fails, half of the bytes of a relu's output are never used."""
    report = kp.quantize(task.model, task.images[:64]).report
    zero_points = {layer.name: layer.zero_point for layer in report.layers}
    assert all(zero_points[name] == 0 for name in ("stem", "conv1", "conv2", "conv3"))
    assert zero_points["head"] is None


@pytest.mark.parametrize("how", ["name", "pattern", "type", "module"])
def test_ignore(task, how: str) -> None:
    """If this fails, a sensitive layer cannot be left in float32."""
    ways = {"name": "head", "pattern": "hea*", "type": nn.Linear, "module": task.model.head}
    quantised = kp.quantize(task.model, task.images[:64], ignore=ways[how])
    layers = {layer.name: layer.precision for layer in quantised.report.layers}
    assert layers.pop("head") == "float32" and layers.pop("x") == ""
    assert set(layers.values()) == {"int8"}
    head = quantised.graph.node("head")
    assert np.array_equal(head.weight, task.model.head.weight.detach().numpy())


def test_model_stays_as_it_was(task) -> None:
    """If this fails, quantising changes the model that was given."""
    before = copy.deepcopy(task.model.state_dict())
    task.model.train()
    kp.quantize(task.model, task.images[:64])
    assert task.model.training
    for name, tensor in task.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_copies(task) -> None:
    """If this fails, a copy of a quantised model loses its report or computes something else."""
    quantised = kp.quantize(task.model, task.images[:64])
    want = quantised(task.test_images)
    for twin in (copy.deepcopy(quantised), pickle.loads(pickle.dumps(quantised))):
        assert torch.equal(twin(task.test_images), want)
        assert twin.report == quantised.report and twin.source == "Digits"
    twin = kp.quantize(task.model, 2 * task.images[:64])
    twin.load_state_dict(quantised.state_dict())
    assert torch.equal(twin(task.test_images), want)
    assert not list(quantised.parameters()) and not quantised.training


def test_report(task) -> None:
    """If this fails, the user is not told which layer suffers, or the table is too wide."""
    report = kp.quantize(task.model, task.images[:64]).report
    text = str(report)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "5 of 5 layers in int8" in text and "64 images" in text
    assert [layer.name for layer in report.layers][:3] == ["x", "stem", "conv1"]
    assert json.loads(json.dumps(report.to_dict()))["layers"][1]["name"] == "stem"
    for layer in report.layers:
        assert 20 < layer.signal_to_noise < 80 and 0 <= layer.clipped < 0.05
    coarse = kp.quantize(task.model, task.images[:64], per_channel=False).report
    assert coarse.layers[-1].signal_to_noise < report.layers[-1].signal_to_noise


def test_long_names_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a deep module's name breaks the table."""
    monkeypatch.setenv("COLUMNS", "80")
    model = nn.Sequential()
    inner = model
    for _ in range(12):
        child = nn.Sequential()
        inner.add_module("a_long_name", child)
        inner = child
    inner.append(nn.Conv2d(3, 4, 3))
    report = kp.quantize(model.eval(), torch.randn(2, 3, 8, 8)).report
    assert all(len(line) <= 80 for line in str(report).splitlines())


def test_progress(task, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a long quantisation says nothing, or a short one writes to the terminal."""
    told = []
    kp.quantize(task.model, task.images[:64], progress=lambda *what: told.append(what))
    assert {doing for doing, _ in told} == {"measuring", "adjusting layers", "comparing"}
    assert all(0 <= share <= 1 for _, share in told)
    written = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "write", written.append, raising=False)
    kp.quantize(task.model, task.images[:64])
    assert not written


REFUSED = {
    "no images": (dict(calibration=[]), Error, "no images"),
    "an empty batch": (dict(calibration=torch.zeros(0, 1, 8, 8)), Error, "no image"),
    "a path": (dict(calibration="images"), Error, "calibration is a str"),
    "a number": (dict(calibration=3), Error, "calibration is a int"),
    "NaN": (dict(calibration=torch.full((2, 1, 8, 8), np.nan)), Error, "NaN"),
    "unknown option": (dict(methode="mse"), Error, "did you mean 'method'"),
    "unknown method": (dict(method="best"), Error, "must be one of"),
    "samples 0": (dict(samples=0), Error, "samples"),
    "ignore nothing": (dict(ignore="convolution"), Error, "selects no layer; there are: stem"),
    "ignore all": (dict(ignore="*"), Error, "no layer to quantise"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "match"), REFUSED.values(), ids=list(REFUSED))
def test_refuses(task, change, kind, match: str) -> None:
    """If this fails, a mistake ends in a traceback from the inside, or in nonsense."""
    given = {"calibration": task.images[:8], **change}
    with pytest.raises(kind, match=match):
        kp.quantize(task.model, **given)


def test_refuses_twice_and_other_shapes(task) -> None:
    """If this fails, bytes are quantised again, or images of another size give wrong numbers."""
    quantised = kp.quantize(task.model, task.images[:8])
    with pytest.raises(Error, match="quantised already"):
        kp.quantize(quantised, task.images[:8])
    with pytest.raises(ShapeError, match=r"\[N, 1, 8, 8\]"):
        quantised(torch.zeros(1, 1, 16, 16))
    with pytest.raises(Error, match="OrderedDict"):
        kp.quantize(task.model.state_dict(), task.images[:8])
    with pytest.raises(Error, match="NaN"):
        task.model.head.weight.data[0, 0] = np.nan
        kp.quantize(task.model, task.images[:8])


# ---------------------------------------------------------------- the engine


def outputs_of(path: Path, x: torch.Tensor, **options) -> np.ndarray:
    return np.asarray(kp.Engine(path, **options).run(x.numpy()))


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("batch", [1, 5, 33])
def test_engine_computes_the_same_bytes(task, tmp_path: Path, density: float, batch: int) -> None:
    """If this fails, the accuracy that was measured in torch is not that of the file."""
    if density < 1:
        kp.prune_connections(task.model, density=density, x=task.images[:2])
    quantised = kp.quantize(task.model, task.images[:64])
    kp.export(quantised, task.images[:2], tmp_path / "m")
    x = task.test_images[:batch]
    found = outputs_of(tmp_path / "m", x)
    assert np.array_equal(found, quantised(x).numpy())
    assert np.array_equal(outputs_of(tmp_path / "m", x, isa="portable"), found)


def test_export_compares_with_the_engine(task, tmp_path: Path, monkeypatch) -> None:
    """If this fails, a file is written that the engine computes wrongly."""
    quantised = kp.quantize(task.model, task.images[:64])
    genuine = GraphModel.compute
    broken = lambda self, position, values: genuine(self, position, values) // 2  # noqa: E731
    monkeypatch.setattr(GraphModel, "compute", broken)
    with pytest.raises(
        Error, match="does not compute what the model computes.*from node 'stem' on"
    ):
        kp.export(quantised, task.images[:2], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_free_sizes(tmp_path: Path) -> None:
    """If this fails, a file with free sizes loses them when it is quantised."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    x = torch.randn(8, 3, 16, 16)
    kp.export(model, x[:1], tmp_path / "m", dynamic=("height", "width"))
    quantised = kp.quantize(tmp_path / "m", x)
    kp.export(quantised, x[:1], tmp_path / "q")
    other = torch.randn(2, 3, 40, 24)
    found = outputs_of(tmp_path / "q", other)
    want = model(other).detach().numpy()
    assert np.linalg.norm(found - want) < 0.03 * np.linalg.norm(want)
