"""Measures the rates of the cost model: ``python -m bench.calibrate --isa avx512``, or those of the
kernels of quantised models: ``--int8 avx512_vnni``.

Layers of all kinds and sizes are computed in every way that the engine knows, in every layout.
The time of a candidate is modelled as a sum over its kernel calls of rates times counts
(``csrc/cpu/plan/cost.h``); the rates are fitted by non-negative least squares on the relative
errors, drawn a little towards the rates of before where measurements leave them open. Several
layers make one network, so that each finds its weights in a far cache and its input in a near one,
as in a real network.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.nnls import nnls
from kernelprune import _core
from kernelprune.benchmarking import describe_machine
from kernelprune.files import write_text
from kernelprune.format import Graph, Node, Value, write
from kernelprune.graph.quantization import Quantization

RESULTS = Path(__file__).parent / "results"
PLAN = Path(__file__).parent.parent / "csrc" / "cpu" / "plan"
TERMS = ("macs", "lookups", "output_tiles", "moved_floats", "uncached_macs")
DENSITIES = (1.0, 0.3, 0.1, 0.05)
LAYERS_PER_NETWORK = 8
_MOST_ROUNDS = 10
# How much a rate's change by its own size weighs beside one measurement that is wrong by as much.
PRIOR = 0.1
# Layers whose activations are larger do not stay in cache: another term of the model, not fitted.
MOST_FLOATS = 4e6


_IMAGES = np.random.default_rng(0).standard_normal(int(MOST_FLOATS), dtype=np.float32)


@dataclass(frozen=True)
class Layer:
    """One node; ``op`` other than conv2d and linear has no weights."""

    op: str
    channels: int
    out_channels: int
    side: int
    kernel: int = 1
    stride: int = 1

    @property
    def out_side(self) -> int:
        if self.op in ("linear", "global_avg_pool"):
            return 1
        return (self.side + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def pad(self) -> int:
        return self.kernel // 2 if self.op == "conv2d" or self.kernel == 3 else 0

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (self.channels,) if self.op == "linear" else (self.channels, self.side, self.side)

    @property
    def out_shape(self) -> tuple[int, ...]:
        side = self.out_side
        return (self.out_channels,) if self.op == "linear" else (self.out_channels, side, side)

    @property
    def floats(self) -> int:
        return int(np.prod(self.in_shape) + np.prod(self.out_shape))

    def moved(self, target: Target, lanes: int) -> float:
        """What the engine counts for a layer without weights: floats, or four bytes for each."""
        if not target.int8:
            return float(self.floats * lanes)
        taps = 2 * self.kernel if self.op in ("max_pool2d", "avg_pool2d") else 1
        return 0.25 * self.floats * taps


@dataclass(frozen=True)
class Target:
    """What is measured: ``int8`` names the kernels of quantised models, beside those of ``isa``."""

    isa: str
    int8: str = ""

    @staticmethod
    def of_int8(name: str) -> Target:
        beside = "avx2" if name == "avx_vnni" else name.partition("_")[0]
        return Target(beside, name)

    @property
    def name(self) -> str:
        """As in the table of rates."""
        return self.int8 or self.isa

    @property
    def lanes(self) -> tuple[int, ...]:
        """Images side by side."""
        if self.int8:  # blocks are stacked images, for layers with weights
            return (16, 1)
        return {"avx512": (16, 8, 1), "avx2": (8, 1), "portable": (4, 1)}[self.isa]


# Of every value of a quantised network.
_BYTES = Quantization(2.0**-5, 10)


def conv(channels: int, out: int, side: int, kernel: int = 3, stride: int = 1) -> Layer:
    return Layer("conv2d", channels, out, side, kernel, stride)


WEIGHTED = [
    *(conv(c, c, s) for c, s in ((16, 32), (64, 32), (128, 16), (256, 8), (512, 4), (512, 2))),
    *(conv(c, c, s) for c, s in ((64, 56), (128, 28), (256, 14), (512, 7), (16, 112))),
    *(conv(c, o, s) for c, o, s in ((3, 64, 32), (64, 128, 16), (256, 128, 8), (128, 512, 4))),
    *(conv(c, o, s, 3, 2) for c, o, s in ((64, 128, 32), (128, 256, 16), (256, 512, 8))),
    *(conv(c, o, s, 3, 2) for c, o, s in ((64, 128, 56), (256, 512, 14), (16, 32, 32))),
    *(conv(c, o, s, 1) for c, o, s in ((16, 16, 32), (64, 256, 56), (256, 64, 28), (128, 128, 16))),
    *(conv(c, o, s, 1) for c, o, s in ((1024, 256, 14), (256, 1024, 14), (256, 256, 8))),
    *(conv(c, o, s, 1) for c, o, s in ((2048, 512, 7), (512, 2048, 7), (512, 512, 2))),
    *(conv(c, o, s, 1, 2) for c, o, s in ((256, 512, 28), (64, 128, 32), (1024, 2048, 14))),
    conv(3, 64, 224, 7, 2),
    conv(3, 64, 64, 7, 2),
    conv(32, 64, 16, 5),
    conv(16, 32, 28, 5),
    *(Layer("linear", c, o, 1) for c, o in ((512, 10), (512, 512), (2048, 1000), (4096, 256))),
]
OTHERS = [
    *(Layer("max_pool2d", c, c, s, 2, 2) for c, s in ((64, 32), (256, 8), (16, 112))),
    *(Layer("max_pool2d", c, c, s, 3, 2) for c, s in ((64, 32), (64, 112))),
    *(Layer("avg_pool2d", c, c, s, 2, 2) for c, s in ((64, 32), (256, 8), (128, 28))),
    *(Layer("global_avg_pool", c, c, s) for c, s in ((512, 7), (2048, 7), (64, 8), (256, 4))),
    *(Layer("add", c, c, s) for c, s in ((16, 32), (64, 56), (256, 14), (2048, 7))),
    *(Layer("activation", c, c, s) for c, s in ((16, 32), (64, 56), (512, 4))),
]


def network(layers: Sequence[Layer], density: float, *, quantised: bool = False) -> Graph:
    """Each layer with an input of its own, written by an activation right before it."""
    graph = _float_network(layers, density)
    if quantised:
        for value in graph.inputs:
            value.quantization = _BYTES
        for node in graph.nodes:
            node.quantization = _BYTES
            if node.weight is not None:
                node.weight = node.weight.astype(np.int8)
                node.weight_scale = np.full(node.shape[0], 2.0**-6, np.float32)
                node.bias = np.zeros(node.shape[0], np.int32)
    return graph


def _float_network(layers: Sequence[Layer], density: float) -> Graph:
    random = np.random.default_rng(0)
    inputs, outputs, nodes = [], [], []
    for i, layer in enumerate(layers):
        x, near, y, shape = f"x{i}", f"near{i}", f"y{i}", layer.in_shape
        inputs.append(Value(x, shape))
        outputs.append(y)
        relu = {"activation": "relu"}
        nodes.append(Node("activation", f"before{i}", [x], near, shape, relu))
        weight = bias = None
        params: dict[str, Any] = {}
        if layer.op in ("conv2d", "linear"):
            params["activation"] = "relu"
            kept = random.random((layer.out_channels, layer.channels)) < density
            kept[np.arange(layer.out_channels), np.arange(layer.out_channels) % layer.channels] = 1
            weight = kept.astype(np.float32)
            if layer.op == "conv2d":
                weight = np.repeat(weight, layer.kernel**2).reshape(
                    *kept.shape, layer.kernel, layer.kernel
                )
            bias = np.zeros(layer.out_channels, np.float32)
        if layer.op in ("add", "activation"):
            params["activation"] = "relu"
        if layer.op in ("conv2d", "max_pool2d", "avg_pool2d"):
            params |= {"kernel": [layer.kernel] * 2, "stride": [layer.stride] * 2}
            params["padding"] = [layer.pad] * 4
            if layer.op != "avg_pool2d":
                params["dilation"] = [1, 1]
            else:
                params["count_include_pad"] = True
        reads = [near, x] if layer.op == "add" else [near]
        nodes.append(Node(layer.op, f"layer{i}", reads, y, layer.out_shape, params, weight, bias))
    return Graph(inputs, outputs, nodes)


@dataclass(frozen=True)
class Call:
    """The calls of one kernel, and their counts together, in the order of TERMS."""

    kernel: str
    width: int
    times: int
    counts: tuple[float, ...]


@dataclass
class Measurement:
    """One way to compute one layer."""

    layer: Layer
    density: float
    lanes: int
    candidate: str
    calls: list[Call]
    seconds: float = float("inf")

    def steps(self) -> int:
        return sum(call.times for call in self.calls)


class Group:
    """Layers that are measured together, in one network and one layout."""

    def __init__(
        self, layers: Sequence[Layer], density: float, lanes: int, target: Target, path: Path
    ):
        self.lanes, self.target, self.path = lanes, target, path
        engine = self.load({})
        self.inputs = [
            _IMAGES[: lanes * int(np.prod(info.shape))].reshape(lanes, *info.shape)
            for info in engine.inputs
        ]
        ways = {layer.node: layer.candidates for layer in engine.candidates}
        kernels = {layer.name: layer.kernel for layer in engine.layers(lanes)}
        self.ways: list[list[Measurement]] = []
        for i, layer in enumerate(layers):
            node = f"layer{i}"
            if node in ways:
                found = [(way.name, _calls(way.stages)) for way in ways[node]]
            else:
                kernel, _, where = kernels[node].partition("/")
                values = (0.0, 0.0, 0.0, layer.moved(target, lanes), 0.0)
                found = [("", [Call(kernel, int(where.rpartition("x")[2]), 1, values)])]
            self.ways.append(
                [Measurement(layer, density, lanes, name, calls) for name, calls in found]
            )
        self.ranks = max(len(ways) for ways in self.ways)

    def load(self, choices: dict[tuple[int, str], str]) -> _core.Engine:
        isa, int8 = self.target.isa, self.target.int8
        return _core.Engine.load(str(self.path), 1, isa, self.lanes, choices=choices, int8_isa=int8)

    def measure(self, rank: int, repeats: int) -> None:
        """Every layer with its candidate of this rank, counted round; keeps the shortest times."""
        chosen = [ways[rank % len(ways)] for ways in self.ways]
        engine = self.load(
            {
                (self.lanes, f"layer{i}"): way.candidate
                for i, way in enumerate(chosen)
                if way.candidate
            }
        )
        seconds = {layer.name: layer.seconds for layer in engine.profile(self.inputs, repeats)}
        for i, way in enumerate(chosen):
            way.seconds = min(way.seconds, seconds[f"layer{i}"])


def _calls(stages: Sequence[Any]) -> list[Call]:
    """One for each stage: their counts are those of all its calls."""
    return [
        Call(
            stage.kernel,
            stage.vector_width,
            stage.calls,
            tuple(getattr(stage, term) for term in TERMS),
        )
        for stage in stages
    ]


def groups(target: Target, folder: Path) -> Iterator[Group]:
    """All layers, densities and layouts."""
    order = np.random.default_rng(1).permutation(len(WEIGHTED))
    mixed = [WEIGHTED[i] for i in order]
    sets = [(mixed, density) for density in DENSITIES] + [(OTHERS, 1.0)]
    for number, (layers, density) in enumerate(sets):
        for lanes in target.lanes:
            if target.int8 and layers is OTHERS and lanes > 1:
                continue
            fitting = [layer for layer in layers if layer.floats * lanes <= MOST_FLOATS]
            for first in range(0, len(fitting), LAYERS_PER_NETWORK):
                some = fitting[first : first + LAYERS_PER_NETWORK]
                path = folder / f"{number}-{lanes}-{first}.safetensors"
                write(network(some, density, quantised=bool(target.int8)), path)
                yield Group(some, density, lanes, target, path)


def measure_all(target: Target, minutes: float, repeats: int) -> list[Measurement]:
    """Rounds over everything until the time is over; the first round is always whole."""
    end = time.perf_counter() + 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        everything = list(groups(target, Path(folder)))
        turns = [(group, rank) for group in everything for rank in range(group.ranks)]
        np.random.default_rng(2).shuffle(turns)  # type: ignore[arg-type]
        for number in range(_MOST_ROUNDS):
            for group, rank in turns:
                if number > 0 and time.perf_counter() > end:
                    break
                group.measure(rank, repeats)
            print(
                f"round {number + 1}: {60 * minutes + time.perf_counter() - end:.0f} s", flush=True
            )
            if time.perf_counter() > end:
                break
    return [way for group in everything for ways in group.ways for way in ways]


# --- the fit -------------------------------------------------------------------------------------


Key = tuple[str, int, str]  # kernel, vector width, term


def step_nanoseconds() -> float:
    """``kCostPerStep``, which is not fitted."""
    text = (PLAN / "cost.h").read_text(encoding="utf-8")
    found = re.search(r"kCostPerStep = ([\d.e+-]+);", text)
    assert found is not None
    return float(found[1])


def table_rates(isa: str) -> dict[Key, float]:
    """The rates that are in use now."""
    text = (PLAN / "cost_table.h").read_text(encoding="utf-8")
    rates = {}
    for kernel, width, numbers in re.findall(
        rf'\{{"{isa}", "(\w+)", (\d+), \{{([^}}]*)\}}\}}', text
    ):
        for term, number in zip(TERMS, numbers.split(","), strict=True):
            rates[kernel, int(width), term] = float(number)
    return rates


def expected(way: Measurement, rates: dict[Key, float], step: float) -> float:
    """Nanoseconds."""
    total = step * way.steps()
    for call in way.calls:
        for term, count in zip(TERMS, call.counts, strict=True):
            total += count * rates.get((call.kernel, call.width, term), 0.0)
    return total


def fit(ways: Sequence[Measurement], before: dict[Key, float], step: float) -> dict[Key, float]:
    """The rates, in nanoseconds."""
    keys = sorted(
        {
            (call.kernel, call.width, term)
            for way in ways
            for call in way.calls
            for term, count in zip(TERMS, call.counts, strict=True)
            if count > 0
        }
    )
    index = {key: i for i, key in enumerate(keys)}
    a = np.zeros((len(ways), len(keys)))
    for row, way in enumerate(ways):
        for call in way.calls:
            for term, count in zip(TERMS, call.counts, strict=True):
                if count > 0:
                    a[row, index[call.kernel, call.width, term]] += count / (way.seconds * 1e9)
    b = np.array([1.0 - step * way.steps() / (way.seconds * 1e9) for way in ways])
    known = [key for key in keys if before.get(key, 0.0) > 0]
    prior = np.zeros((len(known), len(keys)))
    for row, key in enumerate(known):
        prior[row, index[key]] = PRIOR / before[key]
    weight = np.ones(len(ways))
    for _ in range(4):
        x = nnls(
            np.concatenate([a * weight[:, None], prior]),
            np.concatenate([b * weight, np.full(len(known), PRIOR)]),
        )
        # Single disturbed measurements must not bend the rates: large errors count once, not
        # squared.
        weight = 1.0 / np.sqrt(np.maximum(np.abs(a @ x - b), 0.1) / 0.1)
    return dict(zip(keys, x.tolist(), strict=True))


def quality(ways: Sequence[Measurement], rates: dict[Key, float], step: float) -> dict[str, float]:
    """How far the times are from the expected ones, and what the choices lose."""
    errors = [abs(expected(way, rates, step) / (way.seconds * 1e9) - 1) for way in ways]
    layers: dict[tuple[Layer, float, int], list[Measurement]] = {}
    for way in ways:
        layers.setdefault((way.layer, way.density, way.lanes), []).append(way)
    losses = []
    for found in layers.values():
        if len(found) > 1:
            chosen = min(found, key=lambda way: expected(way, rates, step))
            losses.append(chosen.seconds / min(way.seconds for way in found))
    return {
        "median_error": float(np.median(errors)),
        "mean_loss": float(np.mean(losses)),
        "worst_loss": float(np.max(losses)),
    }


def table_rows(isa: str, rates: dict[Key, float], before: dict[Key, float]) -> list[str]:
    """Lines of csrc/cpu/plan/cost_table.h; kernels that were not measured keep their rates."""
    merged = {**before, **dict.fromkeys(((k, w, t) for k, w, _ in rates for t in TERMS), 0.0)}
    merged.update(rates)
    kernels = dict.fromkeys((kernel, width) for kernel, width, _ in merged)
    order = sorted(kernels, key=lambda kernel: (kernel[0] != "any", -kernel[1], kernel[0]))
    return [
        f'    {{"{isa}", "{kernel}", {width}, {{'
        + ", ".join(f"{merged.get((kernel, width, term), 0.0):.4g}" for term in TERMS)
        + "}},"
        for kernel, width in order
    ]


def write_table(isa: str, rows: Sequence[str]) -> None:
    """Replaces the rows of ``isa`` in csrc/cpu/plan/cost_table.h."""
    path = PLAN / "cost_table.h"
    lines = path.read_text(encoding="utf-8").splitlines()
    old = [i for i, line in enumerate(lines) if line.startswith(f'    {{"{isa}", ')]
    kept = [line for i, line in enumerate(lines) if i not in set(old)]
    lines = [*kept[: old[0]], *rows, *kept[old[0] :]]
    write_text(path, "\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.calibrate", description=__doc__)
    parser.add_argument("--isa", default=_core.select_isa(""), choices=_core.available_isas())
    parser.add_argument(
        "--int8", choices=_core.available_int8_isas(), help="measure kernels of quantised models"
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="begin no round after that")
    parser.add_argument("--repeats", type=int, default=3, help="runs to take the median of")
    parser.add_argument("--fit", type=Path, help="fit the measurements of this file again")
    parser.add_argument("--write", action="store_true", help="put the rates into the C++ table")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the json file")
    options = parser.parse_args()
    target = Target.of_int8(options.int8) if options.int8 else Target(options.isa)
    isa, step, before = target.name, step_nanoseconds(), table_rates(target.name)
    if options.fit is not None:
        stored = json.loads(options.fit.read_text(encoding="utf-8"))
        isa, machine = stored["isa"], stored["machine"]
        before = table_rates(isa)
        ways = [_from_json(entry) for entry in stored["measurements"]]
    else:
        machine = describe_machine()
        ways = measure_all(target, options.minutes, options.repeats)
    rates = fit(ways, before, step)
    result = {
        "isa": isa,
        "machine": machine,
        "nanoseconds_per_step": step,
        "before": quality(ways, before, step),
        "fitted": quality(ways, rates, step),
        "rates": [
            {"kernel": kernel, "width": width, "term": term, "nanoseconds": rate}
            for (kernel, width, term), rate in rates.items()
        ],
        "measurements": [_to_json(way) for way in ways],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    kind = "cost-int8" if options.int8 else "cost"
    write_text(options.out / f"{kind}-{isa}.json", json.dumps(result) + "\n")
    rows = table_rows(isa, rates, before)
    print("\n".join(rows))
    print(f"{len(ways)} measurements; before {result['before']}, fitted {result['fitted']}")
    if options.write:
        write_table(isa, rows)


def _to_json(way: Measurement) -> dict[str, Any]:
    calls = [[call.kernel, call.width, call.times, *call.counts] for call in way.calls]
    return {**vars(way), "layer": vars(way.layer), "calls": calls}


def _from_json(entry: dict[str, Any]) -> Measurement:
    calls = [
        Call(kernel, width, times, tuple(counts))
        for kernel, width, times, *counts in entry["calls"]
    ]
    return Measurement(**{**entry, "layer": Layer(**entry["layer"]), "calls": calls})


if __name__ == "__main__":
    main()
