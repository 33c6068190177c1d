"""Quantisation: a trained network in bytes, from a few hundred unlabelled images.

Names are resolved on first use: options can be read, and shown by the command line, without torch.
"""

from __future__ import annotations

from typing import Any

from kernelprune.lazy import resolve

# Module -> the public names that it defines.
_MODULES = {
    "observers": ("Observation", "METHODS"),
    "options": ("QuantizeOptions",),
    "post_training": ("QuantizedModel", "quantize", "quantize_sensitivity"),
    "report": ("LayerReport", "QuantizationReport"),
    "sensitivity": ("QuantizationSensitivity",),
    "training": ("QuantizationAware",),
}
_PUBLIC = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = resolve(f"{__name__}.{name}", f"{__name__}.{_PUBLIC[name]}", name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
