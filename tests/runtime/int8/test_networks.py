"""Whole quantised networks: bytes from end to end, floats in between, threads, batches, memory."""

from __future__ import annotations

from pathlib import Path

import model_bytes as mb
import numpy as np
import pytest
from graphs import GraphBuilder
from int8_files import Int8Builder, check_bits, engines, quantization

from kernelprune import DeviceError, Engine, Error, _core
from kernelprune.runtime import tune

RELU, SIGNED = quantization(0.02, 0), quantization(0.03, 120)
SAME = (1, 1, 1, 1)


def builder(seed: int = 0, dtype: str = "u8") -> tuple[Int8Builder, str]:
    """A graph with one quantised input."""
    b = Int8Builder(np.random.default_rng(seed), integers=True)
    x = b.quantized(b.input((3, 17, 15)), quantization(1 / 64, 110))
    b.dtypes[x] = dtype
    return b, x


def residual_network() -> tuple[Int8Builder, list[str]]:
    """Residuals of both kinds of size, pools, a classifier of numbers."""
    b, x = builder()
    x = b.integer_conv2d(x, 12, RELU, padding=SAME, activation="relu", density=1.0)
    y = b.integer_conv2d(x, 8, RELU, kernel=(1, 1), activation="relu")
    y = b.integer_conv2d(y, 8, RELU, padding=SAME, activation="relu", density=0.3)
    x = b.integer_conv2d(y, 12, SIGNED, kernel=(1, 1), residual=x, activation="relu")
    shortcut = b.integer_conv2d(x, 20, SIGNED, kernel=(1, 1), stride=(2, 2))
    y = b.integer_conv2d(x, 20, RELU, padding=SAME, stride=(2, 2), activation="relu")
    x = b.integer_conv2d(y, 20, SIGNED, padding=SAME, residual=shortcut, density=0.2)
    x = b.quantized(b.pool("max_pool2d", x, (3, 3), (2, 2), SAME), SIGNED)
    x = b.quantized(b.node("global_avg_pool", [x], (20, 1, 1)), RELU)
    x = b.quantized(b.node("flatten", [x], (20,)), RELU)
    return b, [b.integer_linear(x, 10, None)]


def mobile_network() -> tuple[Int8Builder, list[str]]:
    """Depthwise layers, squeeze and excitation, SiLU, sums; two outputs, one of bytes."""
    b, x = builder(1, "f32")
    x = b.integer_conv2d(x, 8, SIGNED, padding=SAME, stride=(2, 2), density=1.0)
    x = b.quantized(b.node("unary", [x], b.shapes[x], function="silu", alpha=0, beta=0), RELU)
    wide = b.integer_conv2d(x, 24, RELU, kernel=(1, 1), activation="relu6")
    eye = np.eye(24, dtype=bool)
    y = b.integer_conv2d(wide, 24, RELU, padding=SAME, activation="relu6", mask=eye)
    s = b.quantized(b.node("global_avg_pool", [y], (24, 1, 1)), RELU)
    s = b.integer_conv2d(s, 6, RELU, kernel=(1, 1), activation="relu")
    s = b.integer_conv2d(s, 24, SIGNED, kernel=(1, 1))
    unit = quantization(1 / 256, 0)
    s = b.quantized(b.node("unary", [s], (24, 1, 1), function="sigmoid", alpha=0, beta=0), unit)
    y = b.quantized(b.node("binary", [y, s], b.shapes[y], function="mul"), RELU)
    y = b.integer_conv2d(y, 8, SIGNED, kernel=(1, 1))
    x = b.quantized(b.node("add", [x, y], b.shapes[x], activation="none"), SIGNED)
    y = b.quantized(b.node("concat", [x, y, x], (24, *b.shapes[x][1:]), axis=0), SIGNED)
    half = b.quantized(
        b.node("slice", [y], (12, *b.shapes[x][1:]), axis=0, start=5, stop=17, step=1), SIGNED
    )
    z = b.integer_conv2d(half, 5, SIGNED, padding=SAME)
    pooled = b.pool("avg_pool2d", z, (2, 2), (2, 2))
    return b, [b.quantized(pooled, quantization(0.01, 7)), y]


def mixed_network() -> tuple[Int8Builder, list[str]]:
    """Layers of numbers between layers of integers; sums of both kinds. All numbers are multiples
    of a power of two, so that sums of floats are exact."""
    b, x = builder(2)
    exact = quantization(2.0**-6, 100)
    x = b.integer_conv2d(x, 9, exact, padding=SAME, density=0.6)
    floats = b.conv2d(x, 9, padding=SAME, density=0.2, activation="relu")
    y = b.quantized(b.conv2d(floats, 7, (1, 1), density=0.5), quantization(2.0**-2, 120))
    z = b.integer_conv2d(y, 9, exact, padding=SAME, residual=x)
    both = b.node("add", [z, floats], b.shapes[z], activation="relu")
    z = b.quantized(b.node("permute", [both], (15, 9, 17), axes=[2, 0, 1]), exact)
    z = b.integer_conv2d(z, 4, None, padding=SAME, stride=(2, 2), density=0.5)
    return b, [z, both]


def small_maps_network() -> tuple[Int8Builder, list[str]]:
    """Layers of maps from 8x8 to 1x1 that images are stacked for, and others between them."""
    b = Int8Builder(np.random.default_rng(3), integers=True)
    x = b.quantized(b.input((5, 8, 8)), quantization(1 / 64, 110))
    b.dtypes[x] = "u8"
    x = b.integer_conv2d(x, 12, SIGNED, padding=SAME, activation="relu", density=0.6)
    y = b.integer_conv2d(x, 12, RELU, padding=SAME, density=0.3)
    x = b.quantized(b.node("add", [x, y], b.shapes[x], activation="relu"), RELU)
    x = b.quantized(b.node("unary", [x], b.shapes[x], function="silu", alpha=0, beta=0), SIGNED)
    shortcut = b.integer_conv2d(x, 9, SIGNED, kernel=(1, 1), stride=(2, 2))
    y = b.integer_conv2d(x, 9, RELU, padding=SAME, stride=(2, 2), activation="relu")
    x = b.integer_conv2d(y, 9, SIGNED, padding=SAME, residual=shortcut, density=0.4)
    y = b.integer_conv2d(x, 9, RELU, kernel=(5, 5), padding=(2, 2, 2, 2), density=0.5)
    x = b.quantized(b.node("concat", [x, y], (18, 4, 4), axis=0), SIGNED)
    x = b.integer_conv2d(x, 16, RELU, kernel=(1, 1), density=0.5)
    x = b.quantized(b.pool("max_pool2d", x, (3, 3), (1, 1), SAME), RELU)
    x = b.quantized(b.pool("max_pool2d", x, (2, 2), (2, 2)), RELU)
    x = b.integer_conv2d(x, 20, SIGNED, padding=SAME, density=0.3)
    y = b.quantized(b.node("global_avg_pool", [x], (20, 1, 1)), RELU)
    x = b.quantized(b.pool("avg_pool2d", x, (2, 2), (2, 2)), RELU)
    x = b.integer_conv2d(x, 20, RELU, padding=SAME, residual=y)
    x = b.quantized(b.node("flatten", [x], (20,)), RELU)
    x = b.integer_linear(x, 33, RELU)
    return b, [b.integer_linear(x, 10, None), y]


NETWORKS = {"residual": residual_network, "mobile": mobile_network, "mixed": mixed_network}
NETWORKS["small maps"] = small_maps_network


@pytest.mark.parametrize("images", [1, 3, 17])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, images: int) -> None:
    """If this fails, values lie elsewhere than where the next layer reads them, a residual is
    written over while it is needed, or threads see each other's bytes."""
    b, outputs = NETWORKS[name]()
    check_bits(b.file(*outputs), b.batch(images))


@pytest.mark.parametrize("images", [1, 7, 16, 17, 64])
@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_of_images(name: str, images: int) -> None:
    """If this fails, an image's results depend on what else is in its batch: stacked maps run into
    each other, or what is computed image by image between them has the place of another image."""
    b, outputs = NETWORKS[name]()
    isas = None if images == 17 else _core.available_int8_isas()[:1]
    check_bits(b.file(*outputs), b.batch(images), lanes=16, isas=isas)


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_behind_a_cut(name: str) -> None:
    """If this fails, the value at which single images become a block gets there as something
    else."""
    b, outputs = NETWORKS[name]()
    data, isas = b.file(*outputs), _core.available_int8_isas()[:1]
    cuts = _core.Engine.load_bytes(data, "file", 1, "", 16).planar_cuts
    assert cuts
    for cut in cuts:
        check_bits(data, b.batch(18), lanes=16, planar_nodes=cut, isas=isas)


@pytest.mark.parametrize("seed", range(12))
def test_random_networks(seed: int) -> None:
    """If this fails, there is an order of layers in which memory is shared by values that are both
    needed, or a value is taken for floats where it is bytes."""
    b, x = builder(seed, "f32" if seed % 2 else "u8")
    rng = np.random.default_rng(seed)
    maps = [x]
    for _ in range(14):
        maps.append(add_layer(b, maps, rng))
    check_bits(b.file(*maps[-3:]), b.batch(2))
    isas = _core.available_int8_isas()[:1]
    check_bits(b.file(*maps[-3:]), b.batch(18), lanes=16, isas=isas)


def add_layer(b: Int8Builder, maps: list[str], rng: np.random.Generator) -> str:
    """A layer of integers, or what works with values of any kind; exact in floats, too."""
    kind = [quantization(2.0**-6, 100), quantization(2.0**-5, 128), None][rng.integers(3)]
    x = maps[rng.integers(len(maps))]
    channels, height, width = b.shapes[x]
    alike = [each for each in maps if b.shapes[each] == b.shapes[x]]
    other = alike[rng.integers(len(alike))]
    op = rng.integers(8)
    if op <= 3 and x in b.kinds:
        kernel = 1 if op == 0 else 3
        return b.integer_conv2d(
            x,
            channels if op == 3 else int(rng.integers(1, 20)),
            kind or quantization(0.05, 99),
            kernel=(kernel, kernel),
            stride=(2, 2) if op == 2 and min(height, width) > 3 else (1, 1),
            padding=(kernel // 2,) * 4,
            density=rng.choice([0.2, 0.6, 1.0]),
            activation=rng.choice(["none", "relu"]),
            residual=other if op == 3 else None,
        )
    if op == 4:
        y = b.node("concat", [x, other], (2 * channels, height, width), axis=0)
    elif op == 5 and channels > 1:
        y = b.node(
            "slice", [x], (channels - 1, height, width), axis=0, start=1, stop=channels, step=1
        )
    elif op == 6:
        y = b.pool("max_pool2d", x, (3, 3), (1, 1), SAME)
    else:
        y = b.node("binary", [x, other], b.shapes[x], function=["add", "maximum"][rng.integers(2)])
    return b.quantized(y, kind)


def test_profile_and_layers(tmp_path: Path) -> None:
    """If this fails, users do not see which kernels compute their model, or a run under the clock
    gives other results."""
    b, outputs = residual_network()
    for _, engine in engines(b.file(*outputs)):
        layers = engine.layers(2)
        assert all("int8_" in layer.kernel for layer in layers if layer.op in ("conv2d", "linear"))
        assert next(layer for layer in layers if layer.op == "flatten").kernel == ""
        assert all(layer.macs > 0 for layer in layers if layer.op == "conv2d")
        profiled = engine.profile(b.batch(2), 1)
        assert sum(layer.seconds for layer in profiled) > 0
        assert engine.weight_bytes > 0


def test_tuning(tmp_path: Path) -> None:
    """If this fails, a quantised model cannot be tuned, or its plan is not that of the next run."""
    b, outputs = residual_network()
    path, plan = tmp_path / "model.safetensors", tmp_path / "plan.json"
    path.write_bytes(b.file(*outputs))
    images = b.batch(3)[0]
    expected = Engine(path).run(images)
    tune(path, seconds=0.002).plan.save(plan)
    assert np.array_equal(Engine(path, plan=plan).run(images), expected)


def test_no_other_modes(tmp_path: Path) -> None:
    """If this fails, a quantised model is planned for lanes that there are no kernels for."""
    b, outputs = residual_network()
    data = b.file(*outputs)
    with pytest.raises(DeviceError, match="for a quantised model has 16, 1"):
        _core.Engine.load_bytes(data, "file", 1, "", 8)
    engine = _core.Engine.load_bytes(data, "file", 1, "", 1)
    assert {layer.lanes for layer in engine.candidates} == {1}
    with pytest.raises(DeviceError, match="int8_isa=sse"):
        _core.Engine.load_bytes(data, "file", 1, "", 0, int8_isa="sse")


def float_twin(b: Int8Builder, outputs: list[str]) -> bytes:
    """The same layers with float32 values and weights."""
    twin = GraphBuilder(b.rng, nodes=b.nodes, shapes=b.shapes, inputs=b.inputs, version="2")
    for name, tensor in b.tensors.items():
        if not name.endswith(".scale"):
            same = name.endswith(("row_ptr", "col"))
            twin.tensors[name] = tensor if same else tensor.astype(np.float32)
    return twin.file(*outputs)


def test_memory() -> None:
    """If this fails, quantised models hold as much as float32 ones while they run."""
    b = Int8Builder(np.random.default_rng(0))
    x = b.quantized(b.input((16, 32, 32)), RELU)
    for _ in range(3):
        y = b.integer_conv2d(x, 32, RELU, kernel=(1, 1), activation="relu")
        x = b.integer_conv2d(y, 16, RELU, padding=SAME, residual=x)
    small = _core.Engine.load_bytes(b.file(x), "file", 1, "", 1)
    large = _core.Engine.load_bytes(float_twin(b, [x]), "file", 1, "", 1)
    assert small.workspace_bytes(1) < 0.5 * large.workspace_bytes(1)
    assert small.weight_bytes < large.weight_bytes
    # One image at a time, whatever the batch.
    assert small.workspace_bytes(64) == small.workspace_bytes(1)


def test_free_sizes() -> None:
    """If this fails, a quantised model runs at its example's size alone, or each size has weights
    of its own."""
    b, x = builder()
    y = b.integer_conv2d(x, 64, RELU, padding=SAME, density=0.4)
    y = b.integer_conv2d(y, 64, RELU, kernel=(1, 1), residual=y)
    graph = b.graph(y)
    graph["inputs"][0].update(shape=[3, "?", "?"], example=[3, 17, 15])
    model = mb.ModelBytes(graph, b.tensors, {"format": "kernelprune", "version": "2"})
    data = model.to_bytes()
    rng = np.random.default_rng(0)
    for size in ((17, 15), (20, 33), (1, 1), (40, 9)):
        check_bits(data, [rng.integers(0, 256, (2, 3, *size)).astype(np.float32)])
    engine = _core.Engine.load_bytes(data, "file", 1, "", 0)
    before = engine.weight_bytes
    # Of 1x1 layers the places of channels depend on the size. The kernels are the same here.
    assert engine.at(18, 16).weight_bytes - before < 0.5 * before


def test_damaged_tuning_is_refused() -> None:
    """If this fails, a plan for another model crashes, or is silently left out."""
    b, outputs = residual_network()
    with pytest.raises(Error, match="tune again"):
        _core.Engine.load_bytes(
            b.file(*outputs), "file", 1, "", 0, choices={(1, "conv2d_0"): "planar_dot/16"}
        )


def test_a_plan_does_not_grow_with_the_map() -> None:
    """If this fails, a file of a kilobyte with a large map takes long to load."""
    sizes = []
    for side in (512, 1024, 4096):
        b = Int8Builder(np.random.default_rng(0))
        x = b.quantized(b.input((3, side, side)), RELU)
        for _ in range(2):
            x = b.integer_conv2d(x, 3, RELU, padding=SAME)
        plan = _core.Engine.load_bytes(b.file(x), "file", 2, "", 0).plan_size
        sizes.append(plan)
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("op", ["add", "concat", "convolution"])
def test_a_plan_follows_the_nodes(op: str) -> None:
    """If this fails, what the plan of a quantised model holds grows faster than the file."""

    def size(count: int) -> tuple[int, int]:
        b = Int8Builder(np.random.default_rng(0))
        x = first = b.quantized(b.input((2, 4, 4)), RELU)
        for _ in range(count if op != "concat" else 0):
            if op == "add":
                x = b.quantized(b.node("add", [x, first], (2, 4, 4), activation="none"), SIGNED)
            else:
                x = b.integer_conv2d(x, 2, RELU, padding=SAME, density=1.0)
        if op == "concat":
            x = b.quantized(b.node("concat", [x] * count, (2 * count, 4, 4), axis=0), SIGNED)
        return _core.Engine.load_bytes(b.file(x), "file", 1, "", 0).plan_size

    small, large = size(100), size(400)
    assert large[0] <= 4 * small[0]
    assert large[1] - small[1] <= 300 * {"add": 4000, "concat": 200, "convolution": 8000}[op]
