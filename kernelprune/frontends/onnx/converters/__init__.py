"""One function for each operator of ONNX, by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kernelprune.frontends.onnx.converters import (
    arithmetic,
    functions,
    layers,
    norms,
    pools,
    quantization,
    reductions,
    resizing,
    shapes,
)

# A converter takes a kernelprune.frontends.onnx.call.Call and returns the tensor that is the
# (first) result, or a list of several. It raises UnsupportedOperator, or ShapeError, for what the
# graph cannot say.
CONVERTERS: dict[str, Callable[[Any], Any]] = {
    **arithmetic.TABLE,
    **functions.TABLE,
    **layers.TABLE,
    **norms.TABLE,
    **pools.TABLE,
    **quantization.TABLE,
    **reductions.TABLE,
    **resizing.TABLE,
    **shapes.TABLE,
}
