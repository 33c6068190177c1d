"""kernelprune: train and prune CNNs, and run what is left fast.

Public names are resolved on first use, so that ``import kernelprune.runtime`` needs numpy alone.
"""

from __future__ import annotations

from importlib import metadata as _metadata
from typing import Any

from kernelprune.errors import (
    DeviceError,
    Error,
    FormatError,
    MissingPackage,
    ShapeError,
    SparsityWarning,
    UnsupportedOperator,
    UnsupportedWarning,
)
from kernelprune.lazy import resolve

try:
    __version__ = _metadata.version("kernelprune")
except _metadata.PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

# Public name -> module that defines it.
_PUBLIC = {
    "Engine": "kernelprune.runtime",
    "SynapticStrength": "kernelprune.prune",
    "DiscriminationAware": "kernelprune.prune",
    "prune_channels": "kernelprune.prune",
    "prune_connections": "kernelprune.prune",
    "compact": "kernelprune.prune.compact",
    "check": "kernelprune.frontends.torch",
    "export": "kernelprune.frontends.torch",
    "quantize": "kernelprune.quantization",
    "QuantizationAware": "kernelprune.quantization",
    "quantize_sensitivity": "kernelprune.quantization",
    "SparseConv2d": "kernelprune.ops",
    "sparsify": "kernelprune.ops",
    "densify": "kernelprune.ops",
    "benchmark": "kernelprune.benchmarking",
}
_SUBPACKAGES = (
    "benchmarking",
    "data",
    "format",
    "frontends",
    "graph",
    "models",
    "ops",
    "prune",
    "quantization",
    "report",
    "runtime",
    "train",
)

__all__ = [
    "DeviceError",
    "Error",
    "FormatError",
    "MissingPackage",
    "ShapeError",
    "SparsityWarning",
    "UnsupportedOperator",
    "UnsupportedWarning",
    "__version__",
    *_PUBLIC,
    *_SUBPACKAGES,
]


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return resolve(f"kernelprune.{name}", f"kernelprune.{name}")
    if name in _PUBLIC:
        value = resolve(f"kernelprune.{name}", _PUBLIC[name], name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'kernelprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
