"""Training with bytes: what is learned is what the quantised network computes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import kernelprune as kp
from kernelprune import Error
from kernelprune.graph.quantization import Quantization
from kernelprune.quantization import QuantizationAware
from kernelprune.quantization.fake import FakeBytes, FakeWeight


def steps(task, groups, count: int, rate: float, penalty=lambda: 0.0) -> list[float]:
    """Trains a few steps; returns the losses."""
    optimiser = torch.optim.SGD(groups, rate, momentum=0.9)
    losses = []
    for step in range(count):
        part = slice(64 * step % 1152, 64 * step % 1152 + 64)
        optimiser.zero_grad()
        loss = functional.cross_entropy(task.model(task.images[part]), task.labels[part])
        (loss + penalty()).backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def decibels(want: torch.Tensor, have: torch.Tensor) -> float:
    return float(10 * torch.log10(want.square().sum() / (want - have).square().sum()))


# ---------------------------------------------------------------- the parts


def test_fake_bytes_are_bytes() -> None:
    """If this fails, training sees other numbers than the engine computes."""
    own = Quantization(0.0371, 90)
    numbers = torch.randn(1000) * 5
    want = own.dequantize(own.quantize(numbers.numpy()))
    torch.testing.assert_close(FakeBytes(own)(numbers).detach(), torch.from_numpy(want))


def test_gradients_pass_inside_the_range() -> None:
    """If this fails, a clipped number is trained as if it had an effect, or one inside is not."""
    fake = FakeBytes(Quantization(0.1, 0))
    numbers = torch.tensor([-1.0, 0.03, 5.0, 30.0], requires_grad=True)
    fake(numbers).sum().backward()
    assert numbers.grad.tolist() == [0, 1, 1, 0]
    # of 30: the bound; of 5 and 0.03: what rounding adds
    assert float(fake.growth.grad) == pytest.approx(0 - 0.03 + 0 + 25.5, rel=1e-4)


def test_fake_weight_is_what_is_written(task) -> None:
    """If this fails, the integers in training are not those of the file: a batch norm behind the
    layer would have to change them."""
    graph = kp.quantize(task.model, task.images[:32]).graph
    for name, norm in (("conv1", "norm1"), ("conv3", "norm3")):
        weight = task.model.get_submodule(name).weight
        scale = weight.abs().amax((1, 2, 3), keepdim=True) / 127
        sign = task.model.get_submodule(norm).weight.sign().view(-1, 1, 1, 1)
        whole = torch.from_numpy(graph.node(name).weight).float() * sign
        torch.testing.assert_close(
            FakeWeight()(weight).detach(), whole * scale, rtol=1e-4, atol=1e-5
        )


# ---------------------------------------------------------------- training


def test_computes_what_the_quantised_model_computes(task) -> None:
    """If this fails, training adapts to other errors than the engine makes."""
    plain = copy.deepcopy(task.model)
    aware = QuantizationAware(task.model, task.images[:128])
    quantised = aware.quantize()
    with torch.no_grad():
        faked, want = task.model(task.test_images), plain(task.test_images)
    found = quantised(task.test_images)
    assert decibels(found, faked) > decibels(found, want) + 2
    for layer, own in aware.ranges().items():
        node = quantised.graph.node(layer)
        producer = quantised.graph.producer(node.inputs[0])
        value = quantised.graph.inputs[0] if producer is None else producer
        assert value.quantization == own


def test_trains_and_ranges_learn(task) -> None:
    """If this fails, a part gets no gradient, or what was learned does not reach the file."""
    aware = QuantizationAware(task.model, task.images[:128])
    before = aware.ranges()
    with torch.no_grad():  # a range that is far too narrow has to widen
        task.model.conv3.fake_quantization.measured.mul_(0.2)
    narrow = aware.ranges()["conv3"].scale
    groups = aware.parameter_groups(1e-4)
    assert len(groups[1]["params"]) == len({id(own) for own in groups[1]["params"]}) == 5
    losses = steps(task, groups, 60, 0.02)
    assert sum(losses[-10:]) < sum(losses[:10])
    after = aware.ranges()
    assert after["conv3"].scale > 1.1 * narrow and after["head"] != before["head"]
    task.model.eval()
    quantised = aware.quantize()
    assert abs(task.accuracy(quantised) - task.accuracy(task.model)) < 0.02
    node = quantised.graph.node("conv3")
    assert quantised.graph.producer(node.inputs[0]).quantization == after["conv3"]


def test_recovers_what_rounding_loses(task) -> None:
    """If this fails, training for bytes is of no use where rounding after training fails."""
    with torch.no_grad():  # one channel is far larger than all others, and hardly used
        task.model.norm1.weight[0] *= 200
        task.model.norm1.bias[0] *= 200
        task.model.conv2.weight[:, 0] /= 200
    exact = task.accuracy(task.model)
    options = {"method": "minmax", "bias_correction": False}
    lost = task.accuracy(kp.quantize(task.model, task.images[:128], **options))
    assert lost < exact - 0.2
    aware = QuantizationAware(task.model, task.images[:128], **options)
    task.model.train()
    steps(task, aware.parameter_groups(), 80, 0.005)
    task.model.eval()
    assert task.accuracy(aware.quantize()) > lost + 0.2


def test_synaptic_strength(task) -> None:
    """If this fails, strengths and bytes cannot be trained together, or pruning under them is
    undone."""
    strength = kp.SynapticStrength(task.model, task.images[:2])
    aware = QuantizationAware(task.model, task.images[:64])
    task.model.train()
    before = {name: own.clone() for name, own in strength.strengths().items()}
    steps(task, strength.parameter_groups(), 20, 0.02, strength.penalty)
    assert all((own != before[name]).any() for name, own in strength.strengths().items())
    plan = strength.prune(density=0.5)
    steps(task, strength.parameter_groups(), 20, 0.02)
    task.model.eval()
    quantised = aware.quantize()
    assert {layer.name for layer in quantised.report.layers} >= set(plan.masks)
    kept = sum(int(mask.sum()) for mask in plan.masks.values())
    layers = [quantised.graph.node(name) for name in plan.masks]
    assert 0.9 * kept <= sum(layer.kept_connections() for layer in layers) <= kept
    with torch.no_grad():
        assert decibels(quantised(task.test_images), task.model(task.test_images)) > 25
    aware.remove()
    model = strength.finalize()
    assert set(model.state_dict()) == set(type(model)().state_dict())
    assert not model.conv1.weight[~plan.masks["conv1"]].any()


def test_masks(task) -> None:
    """If this fails, a dropped connection comes back while bytes are trained."""
    mask = torch.rand(16, 16) < 0.5
    kp.prune.attach_masks(task.model, {"conv1": mask})
    with QuantizationAware(task.model, task.images[:64]) as aware:
        task.model.train()
        steps(task, aware.parameter_groups(1e-3), 10, 0.05)
        task.model.eval()
        quantised = aware.quantize()
    assert not quantised.graph.node("conv1").weight[~mask.numpy()].any()
    assert torch.equal(kp.prune.masks_of(task.model)["conv1"], mask)
    kp.prune.finalize_masks(task.model)
    assert set(task.model.state_dict()) == set(type(task.model)().state_dict())


def test_removed_without_a_trace(task) -> None:
    """If this fails, a model keeps parts of the training, or lost weights by it."""
    names, before = list(task.model.state_dict()), copy.deepcopy(task.model)
    aware = QuantizationAware(task.model, task.images[:64])
    assert list(task.model.state_dict()) != names
    assert aware.remove() is task.model
    assert list(task.model.state_dict()) == names
    x = task.test_images[:16]
    with torch.no_grad():
        assert torch.equal(task.model(x), before(x))
    assert [name for name, _ in task.model.named_parameters()] == [
        name for name, _ in before.named_parameters()
    ]
    with pytest.raises(Error, match="was removed"):
        aware.quantize()


def test_traces_see_the_float_network(task, tmp_path) -> None:
    """If this fails, a model in training cannot be exported, planned or compared."""
    before = kp.frontends.torch.capture(task.model, task.images[:1])
    QuantizationAware(task.model, task.images[:64])
    after = kp.frontends.torch.capture(task.model, task.images[:1])
    assert [node.op for node in after.nodes] == [node.op for node in before.nodes]
    for a, b in zip(before.nodes, after.nodes, strict=True):
        assert a.weight is None or (a.weight == b.weight).all()


def test_copies(task) -> None:
    """If this fails, a moving average of a model in training computes with its parts, not its
    own."""
    QuantizationAware(task.model, task.images[:64])
    twin = copy.deepcopy(task.model)
    x = task.test_images[:16]
    with torch.no_grad():
        want = task.model(x)
        assert torch.equal(twin(x), want)
        task.model.conv3.fake_quantization.growth.add_(1)
        assert torch.equal(twin(x), want) and not torch.equal(task.model(x), want)


def test_shared_module(task) -> None:
    """If this fails, a module that is called twice is rounded twice, or to one call's range."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.conv = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return self.conv(30 * torch.relu(self.conv(torch.relu(self.first(x)))))

    model = Twice().eval()
    aware = QuantizationAware(model, task.images[:32])
    with torch.no_grad():
        assert decibels(aware.quantize()(task.images[:64]), model(task.images[:64])) > 25


def test_ignored_module(task) -> None:
    """If this fails, a layer that shall stay float32 is trained, or written, as bytes."""
    aware = QuantizationAware(task.model, task.images[:32], ignore=task.model.head)
    assert set(aware.ranges()) == {"stem", "conv1", "conv2", "conv3"}
    layers = {layer.name: layer.precision for layer in aware.quantize().report.layers}
    assert layers["head"] == "float32" and layers["conv3"] == "int8"


def test_refuses(task) -> None:
    """If this fails, a mistake shows only after hours of training."""
    with pytest.raises(Error, match="equalize"):
        QuantizationAware(task.model, task.images[:8], equalize=True)
    with pytest.raises(Error, match="DataParallel"):
        QuantizationAware(nn.DataParallel(task.model), task.images[:8])
    QuantizationAware(task.model, task.images[:8])
    with pytest.raises(Error, match="already"):
        QuantizationAware(task.model, task.images[:8])

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 1, 3, 3))

        def forward(self, x):
            return functional.conv2d(x, self.weight)

    with pytest.raises(Error, match="no convolution or linear layer"):
        QuantizationAware(Functional(), task.images[:8])
