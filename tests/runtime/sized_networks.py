"""Networks whose maps may have any height and width, or any multiple of some number."""

from __future__ import annotations

import numpy as np
from graphs import GraphBuilder, Pair, model_bytes

SAME = (1, 1, 1, 1)


class SizedBuilder(GraphBuilder):
    """A builder whose only input is a map of free sides."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.default_rng(seed), version="2")

    def conv(self, x: str, channels: int, activation: str = "relu", **options) -> str:
        """A sparse 3x3 convolution whose outputs stay near one."""
        y = self.conv2d(x, channels, padding=SAME, activation=activation, density=0.7, **options)
        name = self.nodes[-1]["name"]
        weight = self.tensors[f"{name}.weight"]
        self.tensors[f"{name}.weight"] = weight / np.float32((9 * self.shapes[x][0]) ** 0.5)
        return y

    def group_norm(self, x: str, groups: int) -> str:
        y = self.node("group_norm", [x], self.shapes[x], groups=groups, eps=0.1)
        channels = self.shapes[x][0]
        for name in ("scale", "shift"):
            self.tensors[f"{self.nodes[-1]['name']}.{name}"] = self.random((channels,))
        return y

    def function(self, x: str, name: str) -> str:
        return self.node("unary", [x], self.shapes[x], function=name, alpha=0, beta=0)

    def half(self, x: str) -> str:
        return self.pool("max_pool2d", x, (2, 2), (2, 2))

    def resize(self, x: str, mode: str, scale: Pair | tuple[float, float]) -> str:
        channels, height, width = self.shapes[x]
        shape = (channels, int(height * scale[0]), int(width * scale[1]))
        return self.node("resize", [x], shape, mode=mode, align_corners=False, scale=list(scale))

    def concat(self, *parts: str) -> str:
        channels = sum(self.shapes[part][0] for part in parts)
        return self.node("concat", list(parts), (channels, *self.shapes[parts[0]][1:]))

    def sized_file(self, *outputs: str, free: str = "hw") -> bytes:
        """The file; ``free``: which of h and w are."""
        graph = self.graph(*outputs)
        value = graph["inputs"][0]
        channels, height, width = value["shape"]
        value["example"] = value["shape"]
        value["shape"] = [channels, "?" if "h" in free else height, "?" if "w" in free else width]
        return model_bytes(graph, self.tensors, self.version)


def u_net(seed: int = 0, *, free: str = "hw", size: Pair = (16, 24)) -> bytes:
    """Two levels with skips; sides are multiples of 4."""
    b = SizedBuilder(seed)
    x = b.input((3, *size))
    top = b.conv(x, 6)
    middle = b.function(b.group_norm(b.conv(b.half(top), 8, "none"), 2), "silu")
    low = b.conv(b.half(middle), 9)
    middle = b.conv(b.concat(b.resize(low, "nearest", (2, 2)), middle), 7)
    top = b.conv(b.concat(b.resize(middle, "bilinear", (2, 2)), top), 6)
    scores = b.conv(top, 4, "none")
    soft = b.node("softmax", [scores], b.shapes[scores])
    return b.sized_file(soft, middle, free=free)


def residual_network(seed: int = 0, *, free: str = "hw", size: Pair = (16, 24)) -> bytes:
    """Strides, residuals, a gate and a classifier; any sides."""
    b = SizedBuilder(seed)
    x = b.input((3, *size))
    stem = b.conv(x, 8, stride=(2, 2))
    body = b.conv(b.conv(stem, 8), 8, residual=stem)
    gate = b.node("global_avg_pool", [body], (8, 1, 1))
    gate = b.function(b.conv2d(gate, 8, (1, 1)), "sigmoid")
    body = b.node("binary", [body, gate], b.shapes[body], function="mul")
    down = b.conv(body, 12, stride=(2, 2))
    down = b.conv(down, 12, residual=down)
    flat = b.node("flatten", [b.node("global_avg_pool", [down], (12, 1, 1))], (12,))
    return b.sized_file(b.linear(flat, 5), down, free=free)


def plain(seed: int = 0, *, size: Pair = (16, 24)) -> bytes:
    """What every backend computes; multiples of 2."""
    b = SizedBuilder(seed)
    x = b.input((3, *size))
    stem = b.half(b.conv(x, 8))
    body = b.conv(b.conv(stem, 8), 8, residual=stem)
    both = b.conv(b.concat(body, stem), 6, stride=(2, 2))
    flat = b.node("flatten", [b.node("global_avg_pool", [both], (6, 1, 1))], (6,))
    return b.sized_file(b.linear(flat, 5), both)


def pyramid(seed: int = 0, *, free: str = "hw") -> bytes:
    """Ops that move, sample and reduce maps; sides are multiples of 2 and at least 4."""
    b = SizedBuilder(seed)
    x = b.input((4, 16, 24))
    pads = {"before": [0, 2, 1], "after": [0, 0, 3], "mode": "reflect", "value": 0}
    padded = b.node("pad", [x], (4, 18, 28), **pads)
    rows = b.node("reduce", [x], (4, 1, 24), function="mean", axes=[1], keepdim=True)
    columns = b.node("reduce", [x], (4, 16, 1), function="amax", axes=[2], keepdim=True)
    both = b.node("binary", [rows, columns], (4, 16, 24), function="add")
    deep = b.node("space_to_depth", [both], (16, 8, 12), block=2)
    flat = b.node("depth_to_space", [b.conv(deep, 8)], (2, 16, 24), block=2)
    turned = b.node("permute", [flat], (24, 2, 16), axes=[2, 0, 1])
    best = b.node("argmax", [x], (16, 24), axis=0, keepdim=False)
    pooled = b.node("adaptive_max_pool2d", [flat], (2, 3, 5), size=[3, 5])
    smooth = b.resize(b.resize(x, "bicubic", (0.5, 1.5)), "nearest_exact", (2, 2))
    norm = b.node("l2_normalize", [smooth], b.shapes[smooth], axis=0, eps=0.1)
    return b.sized_file(padded, turned, best, pooled, norm, free=free)


ALL = {"u-net": (u_net, 4), "residual": (residual_network, 1), "pyramid": (pyramid, 2)}
