"""The engine on a model that is not in a file yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernelprune import _core


def run_bytes(
    model: bytes, inputs: Sequence[np.ndarray], precision: str = "fast"
) -> tuple[list[np.ndarray], dict[str, str]]:
    """The outputs of a model file's bytes for contiguous float32 ``inputs`` [batch, ...], by the
    default plan on one thread; and the kernels that computed each node, by its name.

    Raises FormatError for bytes that are no model, ShapeError for inputs that do not fit.
    """
    engine = _core.Engine.load_bytes(
        model, "the captured graph", 1, _core.select_isa(""), 0, precision
    )
    outputs = engine.run(list(inputs))
    return outputs, {layer.name: layer.kernel for layer in engine.layers(len(inputs[0]))}
