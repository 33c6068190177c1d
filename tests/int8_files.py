"""Files of quantised values: of one operator, and of layers whose weights are integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import model_bytes as mb
import numpy as np
from op_files import OpFile

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
