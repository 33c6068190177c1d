"""Files of quantised values: of one operator, or networks; and what every way to run them gives."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import model_bytes as mb
import numpy as np
from graphs import GraphBuilder
from op_files import OpFile

from kernelprune import _core

Quantization = dict[str, Any]


def quantization(scale: float, zero_point: int) -> Quantization:
    """Of a value; the scale is a float32."""
    return {"scale": float(np.float32(scale)), "zero_point": zero_point}


@dataclass
class Int8File(OpFile):
    """One node whose inputs and output may be quantised; None stands for a float32 value."""

    given: Sequence[Quantization | None] = field(default_factory=list)
    result: Quantization | None = None
    dtypes: Sequence[str] = field(default_factory=list)  # of the inputs; those left out are f32

    def __str__(self) -> str:
        kinds = "".join("f" if each is None else "b" for each in [*self.given, self.result])
        return f"{super().__str__()}-{kinds}"

    def model(self) -> mb.ModelBytes:
        """The file, and its node 'node' with the value 'y'."""
        model = super().model()
        for entry, quantized in zip(model.graph["inputs"], self.given, strict=False):
            if quantized is not None:
                entry["quantization"] = quantized
        for entry, dtype in zip(model.graph["inputs"], self.dtypes, strict=False):
            entry["dtype"] = dtype
        if self.result is not None:
            model.graph["nodes"][0]["quantization"] = self.result
        return model


def integer_layer(
    kept: np.ndarray, kernel: tuple[int, int], rng: np.random.Generator, *, most: int = 127
) -> dict[str, np.ndarray]:
    """Tensors of a layer of integers; ``kept`` [O, I] says which connections there are."""
    out_channels, count = kept.shape[0], int(kept.sum())
    return {
        "row_ptr": np.concatenate([[0], kept.sum(1).cumsum()]).astype("<u4"),
        "col": np.nonzero(kept)[1].astype("<u2"),
        "weight": rng.integers(-most, most + 1, (count, *kernel)).astype("<i1"),
        "scale": rng.uniform(0.5, 2.0, out_channels).astype("<f4") / np.float32(most * 8),
        "bias": rng.integers(-(1 << 12), 1 << 12, out_channels).astype("<i4"),
    }


def window(
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> dict[str, list[int]]:
    """The parameters of a window."""
    return {
        "kernel": list(kernel),
        "stride": list(stride),
        "padding": list(padding),
        "dilation": list(dilation),
    }


@dataclass
class Int8Builder(GraphBuilder):
    """A graph whose values may be quantised: those that have an entry in ``kinds``."""

    version: str = "2"
    kinds: dict[str, Quantization] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)  # of inputs

    def quantized(self, value: str, kind: Quantization | None) -> str:
        """The same value, quantised unless ``kind`` is None."""
        if kind is not None:
            self.kinds[value] = kind
        return value

    def integer_conv2d(
        self,
        x: str,
        out_channels: int,
        kind: Quantization | None,
        *,
        density: float = 0.5,
        **options: Any,
    ) -> str:
        """A conv2d with integer weights, whose sums are of a size that ``kind`` holds."""
        y = self.conv2d(x, out_channels, density=density, **options)
        return self._of_integers(y, x, kind)

    def integer_linear(self, x: str, out_features: int, kind: Quantization | None) -> str:
        return self._of_integers(self.linear(x, out_features, density=0.5), x, kind)

    def _of_integers(self, y: str, x: str, kind: Quantization | None) -> str:
        name = self.nodes[-1]["name"]
        rows = np.diff(self.tensors[f"{name}.row_ptr"].astype(int))
        weight = self.rng.integers(-127, 128, self.tensors[f"{name}.weight"].shape)
        self.tensors[f"{name}.weight"] = weight.astype(np.int8)
        self.tensors[f"{name}.bias"] = self.rng.integers(-9000, 9000, len(rows)).astype(np.int32)
        terms = max(1.0, float(rows.mean()) * weight[0:1].size)
        size = (kind or {"scale": 0.02})["scale"] / self.kinds[x]["scale"] / np.sqrt(terms) / 80
        scale = self.rng.uniform(0.5, 2, len(rows)) * size
        self.tensors[f"{name}.scale"] = scale.astype(np.float32)
        return self.quantized(y, kind)

    def batch(self, count: int) -> list[np.ndarray]:
        """Numbers that a quantised input holds, and some beyond."""
        found = []
        for name, numbers in zip(self.inputs, super().batch(count), strict=True):
            if self.dtypes.get(name) == "u8":
                numbers = self.rng.integers(0, 256, numbers.shape).astype(np.float32)
            elif name in self.kinds:
                numbers = numbers * np.float32(60 * self.kinds[name]["scale"])
            found.append(numbers)
        return found

    def graph(self, *outputs: Any) -> dict[str, Any]:
        found = copy.deepcopy(super().graph(*outputs))
        for entry in found["inputs"]:
            if entry["name"] in self.kinds:
                entry["quantization"] = self.kinds[entry["name"]]
            if entry["name"] in self.dtypes:
                entry["dtype"] = self.dtypes[entry["name"]]
        for node in found["nodes"]:
            if node["output"] in self.kinds:
                node["quantization"] = self.kinds[node["output"]]
        return found


FLOAT_ISAS = {"portable": "portable", "avx2": "avx2", "avx_vnni": "avx2"}


def engines(
    data: bytes,
    *,
    threads: Sequence[int] = (1, 2),
    choices: dict[tuple[int, str], str] | None = None,
    isas: Sequence[str] | None = None,
    lanes: int = 0,
    planar_nodes: int = -1,
) -> Iterator[tuple[str, _core.Engine]]:
    """An engine for every kind of int8 kernels that this machine has, and what it is."""
    for isa in isas or _core.available_int8_isas():
        for count in threads:
            engine = _core.Engine.load_bytes(
                data,
                "file",
                count,
                FLOAT_ISAS.get(isa, "avx512"),
                lanes,
                planar_nodes=planar_nodes,
                choices=choices or {},
                int8_isa=isa,
            )
            yield f"{isa}, {count} threads", engine


def check_bits(data: bytes, inputs: Sequence[np.ndarray], **options: Any) -> None:
    """Every kind of kernels gives the reference's results, bit by bit."""
    expected: list[np.ndarray] | None = None
    for what, engine in engines(data, **options):
        if expected is None:
            expected = [each.astype(np.float32) for each in engine.run_reference(list(inputs))]
        for found, right in zip(engine.run(list(inputs)), expected, strict=True):
            assert np.array_equal(found, right, equal_nan=True), what


def check_file(file: Int8File, images: int = 3, **options: Any) -> None:
    """The same for random numbers that reach all bytes of the inputs, and some beyond."""
    check_bits(file.model().to_bytes(), numbers_for(file, images), **options)


def numbers_for(file: Int8File, images: int, seed: int = 0) -> list[np.ndarray]:
    """Inputs of a file: numbers around those that the bytes stand for, or bytes."""
    rng = np.random.default_rng(seed)
    found = []
    for i, shape in enumerate(file.inputs or [(1,)]):
        quantized = file.given[i] if i < len(file.given) else None
        size = (images, *shape)
        if i < len(file.dtypes) and file.dtypes[i] == "u8":
            found.append(rng.integers(0, 256, size).astype(np.float32))
        elif quantized is None:
            found.append(rng.standard_normal(size).astype(np.float32))
        else:
            steps = rng.uniform(-10, 265, size) - quantized["zero_point"]
            found.append((steps * quantized["scale"]).astype(np.float32))
    return found
