"""Files of quantised values: of one operator, and of layers whose weights are integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import model_bytes as mb
import numpy as np
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


FLOAT_ISAS = {"portable": "portable", "avx2": "avx2", "avx_vnni": "avx2"}


def engines(
    data: bytes,
    *,
    threads: Sequence[int] = (1, 2),
    choices: dict[tuple[int, str], str] | None = None,
    isas: Sequence[str] | None = None,
) -> Iterator[tuple[str, _core.Engine]]:
    """An engine for every kind of int8 kernels that this machine has, and what it is."""
    for isa in isas or _core.available_int8_isas():
        for count in threads:
            engine = _core.Engine.load_bytes(
                data,
                "file",
                count,
                FLOAT_ISAS.get(isa, "avx512"),
                0,
                choices=choices or {},
                int8_isa=isa,
            )
            assert engine.isa == isa
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
