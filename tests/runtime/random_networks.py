"""Random networks over every operator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from graphs import GraphBuilder, Pair, window_output
from runtime.random_operators import MoreOperators

# Different images; a batch repeats them, and no vector has a multiple of so many lanes, so that an
# image that is read from the wrong lane is another image.
IMAGES = 5
# Limits of one network, per image: the reference is slow.
MAX_MACS = 1_000_000
MAX_ELEMENTS = 20_000
MAX_CHANNELS = 70

DENSITIES = (0.0, 0.03, 0.1, 0.3, 0.5, 0.8, 0.95, 1.0, 1.0)
ACTIVATIONS = ("none", "relu", "relu6")


@dataclass
class Network:
    """A model file with the shapes that a caller has to know."""

    seed: int
    content: bytes
    inputs: list[np.ndarray]  # IMAGES of each
    nodes: list[str]

    def batch(self, count: int) -> list[np.ndarray]:
        """``count`` images: the network's own, again and again."""
        return [x[np.arange(count) % IMAGES] for x in self.inputs]


AXIS = ("kernel", "stride", "padding", "dilation")


def every_window_sees_the_map(
    size: int, out: int, kernel: int, stride: int, padding: int, dilation: int
) -> bool:
    """Whether no window of a pooling lies in the padding alone, along one axis: its maximum is
    minus infinity, its average 0 / 0."""
    taps = np.arange(out)[:, None] * stride - padding + np.arange(kernel) * dilation
    return bool(((taps >= 0) & (taps < size)).any(1).all())


class RandomNetwork(MoreOperators):
    """Adds random nodes to a graph; a node that would be too large is left out."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.b = GraphBuilder(self.rng)
        self.macs = 0
        self.values: list[str] = []  # what a node may read; late ones are read more often
        self.exact: set[str] = set()
        if self.chance(0.8):
            self.b.version = "2"

    # --- choices -------------------------------------------------------------------------------

    def pick(self, options):
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def value(self, rank: int | None = None) -> str | None:
        """A value, mostly a late one."""
        found = [v for v in self.values if rank is None or len(self.b.shapes[v]) == rank]
        if not found:
            return None
        late = found[-2:]
        return self.pick(late if self.chance(0.7) else found)

    def like(self, shape: tuple[int, ...]) -> str | None:
        """A value of this shape."""
        found = [v for v in self.values if self.b.shapes[v] == shape]
        return self.pick(found) if found else None

    def extent(self) -> int:
        return int(self.pick((1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 23, 32, 33, 40)))

    def channels(self) -> int:
        return int(self.pick((1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 33, 48, 64, 70)))

    # --- nodes ---------------------------------------------------------------------------------

    def input(self, name: str) -> None:
        if self.chance(0.1):
            shape: tuple[int, ...] = (self.channels(),)
        else:
            height = self.extent()
            width = height if self.chance(0.5) else self.extent()
            shape = (int(self.pick((1, 2, 3, 4, 5, 8, 16, 17, 33, 70))), height, width)
            while np.prod(shape) > 6000:
                shape = (max(shape[0] // 2, 1), (height := max(height - 7, 1)), min(width, 23))
        self.values.append(self.b.input(shape, name))
        self.exact.add(name)

    def window(self, shape: tuple[int, ...], largest: int) -> dict | None:
        """A window that fits a map."""
        kinds = ((1, 1), (3, 3), (3, 3), (5, 5), (7, 7), None, None, None)
        kernel: Pair = self.pick(kinds) or self.other_kernel(largest)
        stride = self.pick(((1, 1), (1, 1), (1, 1), (2, 2), (2, 2), (3, 1), (1, 2), (3, 3)))
        dilation = self.pick(((1, 1), (1, 1), (1, 1), (1, 1), (2, 2), (3, 1), (1, 2)))
        extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        if self.chance(0.6):  # such that a stride of 1 keeps the map
            padding = (*((e - 1) // 2 for e in extent), *(e // 2 for e in extent))
        else:
            padding = tuple(int(self.rng.integers(e)) for e in (*extent, *extent))
        if min(window_output(*shape[1:], kernel, (1, 1), padding, dilation)) < 1:
            return None
        return {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}

    def other_kernel(self, largest: int) -> Pair:
        side, other = (int(k) for k in self.rng.integers(1, largest + 1, 2))
        return self.pick(((1, side), (side, 1), (side, other), (side, side)))

    def connection_mask(self, out_channels: int, in_channels: int) -> np.ndarray:
        density = float(self.pick(DENSITIES))
        mask = self.rng.random((out_channels, in_channels)) < density
        groups = [g for g in (2, 3, 4, 5, 8) if in_channels % g == 0 and out_channels % g == 0]
        if groups and self.chance(0.2):
            group = self.pick(groups)
            block = np.ones((out_channels // group, in_channels // group), bool)
            mask &= np.kron(np.eye(group, dtype=bool), block)
        if self.chance(0.1):  # dead channels
            mask[self.rng.random(out_channels) < 0.3] = False
            mask[:, self.rng.random(in_channels) < 0.3] = False
        return mask

    def scale(self, x: str, kept: np.ndarray, taps: int) -> None:
        """Keeps activations near one, so that a softmax behind them is well conditioned."""
        fan_in = max(kept.sum(1).max(initial=0) * taps, 1)
        name = self.b.nodes[-1]["name"]
        weight = self.b.tensors[f"{name}.weight"]
        self.b.tensors[f"{name}.weight"] = weight / np.float32(np.sqrt(fan_in))

    def conv2d(self) -> str | None:
        x = self.value(3)
        if x is None:
            return None
        shape = self.b.shapes[x]
        window = self.window(shape, 9)
        if window is None:
            return None
        depthwise = self.chance(0.15)
        out_channels = shape[0] if depthwise or self.chance(0.3) else self.channels()
        mask = np.eye(shape[0], dtype=bool) if depthwise else None
        if mask is None:
            mask = self.connection_mask(out_channels, shape[0])
        map_shape = window_output(
            *shape[1:], window["kernel"], window["stride"], window["padding"], window["dilation"]
        )
        taps = window["kernel"][0] * window["kernel"][1]
        out = (out_channels, *map_shape)
        if not self.fits(out, int(mask.sum()) * taps * map_shape[0] * map_shape[1]):
            return None
        residual = self.like(out) if self.chance(0.5) else None
        activation = self.pick(ACTIVATIONS)
        y = self.b.conv2d(
            x, out_channels, activation=activation, residual=residual, mask=mask, **window
        )
        self.scale(x, mask, taps)
        return y

    def affine(self) -> str | None:
        """What a batch norm becomes that folds into no convolution."""
        x = self.value(3)
        if x is None or not self.fits(self.b.shapes[x], int(np.prod(self.b.shapes[x]))):
            return None
        channels = self.b.shapes[x][0]
        return self.b.conv2d(
            x, channels, (1, 1), activation=self.pick(ACTIVATIONS), mask=np.eye(channels) > 0
        )

    def linear(self) -> str | None:
        x = self.value(1)
        if x is None:
            return None
        out_features = self.channels()
        mask = self.connection_mask(out_features, self.b.shapes[x][0])
        if not self.fits((out_features,), int(mask.sum())):
            return None
        residual = self.like((out_features,)) if self.chance(0.5) else None
        y = self.b.node(
            "linear",
            [x] if residual is None else [x, residual],
            (out_features,),
            activation=self.pick(ACTIVATIONS),
        )
        self.b.connections(mask, (1, 1))
        self.scale(x, mask, 1)
        return y

    def pool(self) -> str | None:
        x = self.value(3)
        if x is None:
            return None
        shape = self.b.shapes[x]
        window = self.window(shape, 5)
        if window is None:
            return None
        op = self.pick(("max_pool2d", "avg_pool2d"))
        if op == "avg_pool2d":
            window["dilation"] = (1, 1)
            window["count_include_pad"] = self.chance(0.5)
            sides = (*window["kernel"], *window["kernel"])
            window["padding"] = tuple(
                min(p, k - 1) for p, k in zip(window["padding"], sides, strict=True)
            )
        padding, kernel = window["padding"], window["kernel"]
        out = window_output(*shape[1:], kernel, window["stride"], padding, window["dilation"])
        if min(out) < 1 or not self.fits((shape[0], *out), shape[0] * out[0] * out[1] * 10):
            return None
        sees = all(
            every_window_sees_the_map(
                shape[1 + axis], out[axis], *(window[key][axis] for key in AXIS)
            )
            for axis in (0, 1)
        )
        return self.b.pool(op, x, **window) if sees else None

    def global_avg_pool(self) -> str | None:
        x = self.value(3)
        return x and self.b.node("global_avg_pool", [x], (self.b.shapes[x][0], 1, 1))

    def add(self) -> str | None:
        x = self.value()
        other = self.like(self.b.shapes[x])
        return self.b.node("add", [x, other], self.b.shapes[x], activation=self.pick(ACTIVATIONS))

    def concat(self) -> str | None:
        x = self.value()
        shape = self.b.shapes[x]
        others = [v for v in self.values if self.b.shapes[v][1:] == shape[1:]]
        others = [v for v in others if len(self.b.shapes[v]) == len(shape)]
        parts = [x, *(self.pick(others) for _ in range(int(self.rng.integers(1, 4))))]
        out = (sum(self.b.shapes[v][0] for v in parts), *shape[1:])
        if out[0] > 2 * MAX_CHANNELS or not self.fits(out, 0):
            return None
        return self.b.node("concat", parts, out)

    def flatten(self) -> str | None:
        x = self.value(3)
        if x is None:
            return None
        return self.b.node("flatten", [x], (int(np.prod(self.b.shapes[x])),))

    def activation(self) -> str | None:
        x = self.value()
        return self.b.node(
            "activation", [x], self.b.shapes[x], activation=self.pick(("relu", "relu6"))
        )

    def softmax(self) -> str | None:
        x = self.value()
        return self.b.node("softmax", [x], self.b.shapes[x])

    def fits(self, shape: tuple[int, ...], macs: int) -> bool:
        if np.prod(shape) > MAX_ELEMENTS or min(shape) < 1 or self.macs + macs > MAX_MACS:
            return False
        self.macs += int(macs)
        return True

    def build(self, seed: int) -> Network:
        for i in range(int(self.pick((1, 1, 1, 2, 3)))):
            self.input(f"x{i}")
        kinds: list = [self.conv2d] * 8 + [self.pool] * 3 + [self.linear] * 3
        kinds += [self.affine, self.global_avg_pool, self.add, self.add, self.concat, self.concat]
        kinds += [self.flatten, self.activation, self.softmax]
        if self.b.version == "2":
            kinds += 2 * [self.fused, self.norm, self.slice, self.binary, self.attention]
            kinds += [self.unary, self.by_channel, self.gate, self.split, self.shuffle]
            kinds += [self.permute, self.reshape, self.expand, self.pad, self.concat_anywhere]
            kinds += [self.blocks, self.resize, self.adaptive_pool, self.soft, self.reduce]
            kinds += [self.argmax, self.blocks]
        wanted = int(self.rng.integers(1, 14))
        for _ in range(3 * wanted):
            value = self.pick(kinds)() if len(self.b.nodes) < wanted else None
            if value is not None:
                self.values.append(value)
        outputs = [self.values[-1]]
        while self.chance(0.4):
            outputs.append(self.pick(self.values))
        if self.b.version == "2":  # where a value is one output, or has several names
            names = [v if self.chance(0.7) else f"out{i}" for i, v in enumerate(outputs)]
            names = [n if n not in names[:i] else f"again{i}" for i, n in enumerate(names)]
            outputs = [
                v if v == n else {"name": n, "value": v}
                for v, n in zip(outputs, names, strict=True)
            ]
        self.outputs = outputs
        content = self.b.file(*outputs)
        nodes = [f"{node['op']}{node['shape']}" for node in self.b.nodes]
        return Network(seed, content, self.b.batch(IMAGES), nodes)


def random_network(seed: int) -> Network:
    """The network of this seed."""
    return RandomNetwork(seed).build(seed)
