"""Permutes and reshapes of a model: how many are left in the graph, and whether it is the same."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from kernelprune import UnsupportedOperator
from kernelprune.frontends.torch import to_torch, trace
from kernelprune.frontends.torch.arrange import Arranger
from kernelprune.frontends.torch.view import BATCH, View
from kernelprune.graph.ir import Graph, Node
from kernelprune.graph.passes import run_all
from kernelprune.prune.layers import find_layers

# ---------------------------------------------------------------- views of one value


def read(view: View, array: np.ndarray, batch: int) -> np.ndarray:
    """The tensor that a view of ``array`` [batch, ...] is."""
    order = [part + 1 for parts in view.axes for part in parts]  # BATCH + 1 = 0
    sides = [batch if part == BATCH else view.sides[part] for parts in view.axes for part in parts]
    ends = np.cumsum([0, *map(len, view.axes)])
    shape = [math.prod(sides[a:b]) for a, b in zip(ends, ends[1:], strict=False)]
    return array.reshape(batch, *view.sides).transpose(order).reshape(shape)


def some_sides(size: int, rng: random.Random) -> list[int]:
    """Up to five sides whose product is ``size``."""
    sides = []
    while size > 1 and len(sides) < 4:
        side = rng.choice([d for d in range(1, size + 1) if size % d == 0])
        sides.append(side)
        size //= side
    return [*sides, size]


def apply(node: Node, array: np.ndarray) -> np.ndarray:
    """A permute, gather, reshape or flatten node in numpy; ``array`` [batch, ...]."""
    if node.op == "permute":
        return array.transpose([0, *(axis + 1 for axis in node.params["axes"])])
    if node.op == "gather":
        return array.take(node.tensors["index"], axis=node.params["axis"] + 1)
    return array.reshape(array.shape[0], *node.shape)


@pytest.mark.parametrize("seed", range(200))
def test_view_is_the_tensor(seed: int) -> None:
    """If this fails, some chain of permutes and reshapes reads the wrong elements, in every model
    that has it."""
    rng, batch = random.Random(seed), 5
    shape = tuple(rng.choice([1, 2, 3, 4, 6]) for _ in range(rng.randint(1, 4)))
    array = np.arange(batch * math.prod(shape)).reshape(batch, *shape)
    view, tensor = View.of("v", shape), array
    for _ in range(6):
        if rng.random() < 0.5:
            order = rng.sample(range(tensor.ndim), tensor.ndim)
            view, tensor = view.permuted(order), tensor.transpose(order)
        else:
            wanted = [(side, False) for side in some_sides(math.prod(shape), rng)]
            place = rng.randrange(len(wanted))
            wanted[place] = (wanted[place][0], True)  # the batch is part of this axis
            reshaped = view.reshaped(wanted)
            if reshaped is not None:
                view = reshaped
                tensor = tensor.reshape([side * (batch if own else 1) for side, own in wanted])
        for other in (view, view.merged(), view.split_to(shape)):
            assert np.array_equal(read(other, array, batch), tensor)
        groups = view.groups(shape)
        if groups is not None:
            named = sorted(axis for group in groups for axis in group)
            assert len(set(named)) == len(named) and set(named) <= {BATCH, *range(len(shape))}
            sides = [math.prod(shape[a] for a in group if a != BATCH) for group in groups]
            assert sides == [view.side(axis) for axis in range(view.rank)]


@pytest.mark.parametrize("seed", range(200))
def test_view_put_in_order(seed: int) -> None:
    """If this fails, an operator that needs its operand in order gets it in another one, or nodes
    of five axes that no file can hold."""
    rng = random.Random(seed)
    shape = tuple(rng.choice([1, 2, 3, 4, 6]) for _ in range(rng.randint(1, 4)))
    arrays = {"v": np.arange(math.prod(shape)).reshape(1, *shape)}
    shapes, nodes = {"v": shape}, {}

    def append(op, value, result, params, tensors) -> Node:
        name = f"n{len(nodes)}"
        node = Node(op, name, [value], name, result, params, tensors=tensors)
        arrays[name], shapes[name], nodes[name] = apply(node, arrays[value]), result, node
        assert arrays[name].shape[1:] == result and len(result) <= 4
        return node

    arranger = Arranger(shapes, nodes, append)
    view, tensor = View.of("v", shape), arrays["v"]
    for _ in range(6):
        if rng.random() < 0.6:
            order = [0, *rng.sample(range(1, tensor.ndim), tensor.ndim - 1)]
            view, tensor = view.permuted(order), tensor.transpose(order)
        else:
            sides = some_sides(math.prod(shape), rng)
            reshaped = view.reshaped([(1, True), *((side, False) for side in sides)])
            if reshaped is not None:
                view, tensor = reshaped, tensor.reshape(1, *sides)
    if tensor.ndim > 5:
        return
    value = arranger.value(view)
    count = len(nodes)
    assert np.array_equal(arrays[value], tensor)
    assert arranger.value(view) == value and len(nodes) == count


# ---------------------------------------------------------------- models


class ConvNextBlock(nn.Module):
    """As the published one: the layers between the two permutes work on [N, H, W, C]."""

    def __init__(self, channels: int = 6):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.wide = nn.Linear(channels, 4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.rand(channels))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.narrow(functional.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


class Attention(nn.Module):
    """As in vision transformers, class token and all."""

    def __init__(self, fused: bool):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.rand(1, 1, 8))
        self.places = nn.Parameter(torch.rand(1, 5, 8))
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.head, self.fused = nn.Linear(8, 5), fused

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        batch, tokens, width = x.shape
        parts = self.qkv(self.norm(x)).reshape(batch, tokens, 3, 2, width // 2)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        if self.fused:
            y = functional.scaled_dot_product_attention(q, k, v)
        else:
            y = (0.5 * q @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(batch, tokens, width))
        return self.head(x[:, 0])


class TorchAttention(nn.Module):
    def __init__(self, weights: bool):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.weights = weights

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return (x + self.attention(x, x, x, need_weights=self.weights)[0]).mean(1)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x):
        return self.layer(self.patches(x).flatten(2).mT)[:, 0]


class Windows(nn.Module):
    """Attention within windows, which are part of the batch in between."""

    def __init__(self):
        super().__init__()
        self.first, self.linear = nn.Conv2d(3, 8, 1), nn.Linear(8, 8)

    def forward(self, x):
        x = self.first(x).permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        x = x.view(batch, height // 4, 4, width // 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        x = self.linear(x.reshape(-1, 16, channels))
        x = (x @ x.transpose(-2, -1)).softmax(-1) @ x
        x = x.view(-1, height // 4, width // 4, 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class ShiftedWindows(nn.Module):
    """As a Swin transformer has them: shifted, with a bias by place and a mask by window."""

    def __init__(self):
        super().__init__()
        self.first, self.qkv = nn.Conv2d(3, 8, 1), nn.Linear(8, 24)
        self.bias = nn.Parameter(torch.rand(49, 2))
        self.register_buffer("index", torch.randint(49, (256,)))
        self.register_buffer("mask", -100.0 * (torch.rand(4, 16, 16) > 0.5))

    def forward(self, x):
        x = self.first(x).permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        x = torch.roll(x, (-2, -2), (1, 2)).view(batch, height // 4, 4, width // 4, 4, channels)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, channels)
        parts = self.qkv(x).reshape(x.shape[0], 16, 3, 2, 4).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        scores = q @ k.transpose(-2, -1)
        scores = scores + self.bias[self.index].view(16, 16, 2).permute(2, 0, 1).unsqueeze(0)
        scores = scores.view(batch, 4, 2, 16, 16) + self.mask.unsqueeze(1).unsqueeze(0)
        x = (scores.view(-1, 2, 16, 16).softmax(-1) @ v).transpose(1, 2)
        x = x.reshape(-1, height // 4, width // 4, 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        return torch.roll(x.reshape(batch, height, width, channels), (2, 2), (1, 2))


class Signal(nn.Module):
    """Layers over one axis."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv1d(24, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.second, self.linear = nn.Conv1d(8, 6, 3), nn.Linear(6, 4)

    def forward(self, x):
        x = functional.max_pool1d(self.norm(self.first(x.flatten(1, 2))).relu(), 2)
        return self.linear(self.second(x).mean(-1))


class Applied(nn.Module):
    """A function on the maps of a convolution."""

    def __init__(self, function):
        super().__init__()
        self.first, self.linear, self.function = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), function

    def forward(self, x):
        return self.function(self, self.first(x))


def shuffled(model, x):
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).flatten(1, 2)


def gated(model, x):
    """A factor per channel, computed on [N, H, W, C]."""
    x = x.permute(0, 2, 3, 1)
    x = x * torch.sigmoid(x.mean((1, 2), keepdim=True))
    first, second = torch.cat([x, x.roll(1, 1)], -1).chunk(2, -1)
    return model.linear((first * second).softmax(-1)).movedim(-1, 1)


def batch_last(model, x):
    """As recurrent code has it, the batch behind the places."""
    return model.linear(x.flatten(2).permute(2, 0, 1)).permute(1, 2, 0)


# Model -> (how to make it, ops that its graph has; None: whatever it takes).
MODELS = {
    "ConvNeXt": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 1), ConvNextBlock()),
        "conv2d conv2d layer_norm conv2d unary conv2d affine add",
    ),
    "attention": (lambda: Attention(False), None),
    "fused attention": (lambda: Attention(True), None),
    "nn.MultiheadAttention": (lambda: TorchAttention(False), None),
    "nn.MultiheadAttention with weights": (lambda: TorchAttention(True), None),
    "nn.TransformerEncoderLayer": (Encoder, None),
    "windows": (Windows, None),
    "shifted windows": (ShiftedWindows, None),
    "one axis": (
        Signal, "reshape conv2d batch_norm activation max_pool2d conv2d reduce flatten linear",
    ),
    "channel shuffle": (lambda: Applied(shuffled), "conv2d gather"),
    "norm of channels": (
        lambda: Applied(lambda m, x: functional.layer_norm(x.mT.mT.movedim(1, 3), [8]).mH.mH),
        "conv2d layer_norm permute",
    ),
    "gate": (
        lambda: Applied(gated),
        "conv2d global_avg_pool unary binary slice slice concat concat slice slice binary softmax "
        "conv2d",
    ),
    "batch behind": (lambda: Applied(batch_last), "conv2d conv2d reshape"),
    "there and back": (
        lambda: Applied(lambda m, x: x.flatten(2).mT.relu().mT.reshape(x.shape).relu()),
        "conv2d activation activation",
    ),
    "operands in two orders": (
        lambda: Applied(lambda m, x: x.permute(0, 2, 3, 1) + x.mT.permute(0, 3, 2, 1)),
        "conv2d add permute",
    ),
    "an output in another order": (
        lambda: Applied(lambda m, x: (x.permute(0, 2, 3, 1), x.flatten(2))),
        "conv2d permute reshape",
    ),
    "axes across parts": (
        lambda: Applied(lambda m, x: x.reshape(x.shape[0], 6, 8, -1)[:, 1:5:2]), None,
    ),
    "constants by axis": (
        lambda: Applied(
            lambda m, x: x.movedim(1, -1) * torch.arange(8.0) + torch.arange(6.0)[:, None]
        ),
        None,
    ),
    "parts of an axis": (
        lambda: Applied(lambda m, x: x.unflatten(1, (2, 4)).unbind(1)[1].unsqueeze(1).amax(2)),
        None,
    ),
}  # fmt: skip

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()


def made(name: str) -> tuple[nn.Module, Graph]:
    torch.manual_seed(0)
    model = MODELS[name][0]().double().eval()
    return model, trace(model, IMAGES[:1])


def outputs(model: nn.Module) -> list[torch.Tensor]:
    with torch.no_grad():
        found = model(IMAGES)
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    """If this fails, a model that permutes its maps computes something else as a graph, or has
    nodes that move numbers for nothing."""
    model, graph = made(name)
    for each in (graph, run_all(graph.copy())):
        for have, want in zip(outputs(to_torch(each, torch.float64)), outputs(model), strict=True):
            assert have.shape == want.shape
            assert (have - want).norm() <= 1e-12 * want.norm()
    if MODELS[name][1] is not None:
        assert [node.op for node in graph.nodes] == MODELS[name][1].split()


@pytest.mark.parametrize("name", ["attention", "fused attention", "nn.MultiheadAttention"])
def test_attention_moves_nothing(name: str) -> None:
    """If this fails, each block of a transformer copies its tokens several times."""
    _, graph = made(name)
    assert [node.op for node in graph.nodes].count("permute") == 0


def test_linear_layers_on_maps_are_pruned() -> None:
    """If this fails, the layers with most weights of a ConvNeXt are no layers to the pruner, or it
    changes parameters of another one."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), ConvNextBlock(), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 2, 1)
    )
    model = model.double()
    graph = trace(model, IMAGES)
    layers = {layer.name: layer for layer in find_layers(model, graph)}
    assert [node.op for node in layers["1.wide"].nodes] == ["conv2d"]
    assert layers["1.wide"].map_size == (8, 8) and layers["1.narrow"].cost == 64
    node = graph.node("1.wide")
    assert node.module == "1.wide" and node.weight.shape == (24, 6, 1, 1)
    assert node.parameters == {"weight": "1.wide.weight", "bias": "1.wide.bias"}
    model[1].wide.weight.data[5] = 0
    assert not trace(model, IMAGES).node("1.wide").weight[5].any()


def test_mixed_images_are_refused() -> None:
    """If this fails, a graph computes one image from another one of its batch."""
    for function in (
        lambda m, x: x.transpose(0, 1),
        lambda m, x: x.softmax(0),
        lambda m, x: x.flatten(0, 1).mean(0),
        lambda m, x: torch.cat([x, x], 0),
    ):
        with pytest.raises(UnsupportedOperator, match="batch|axis 0"):
            trace(Applied(function).eval(), IMAGES.float())
