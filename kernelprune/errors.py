"""The errors that kernelprune raises on purpose. Everything else that escapes is a bug."""

from __future__ import annotations

from kernelprune.text import plain

# Package, by the name that is imported -> the smallest extra that brings it.
EXTRAS = {
    "typer": "cli",
    "rich": "cli",
    "PIL": "cli",
    "torch": "train",
    "safetensors": "train",
    "yaml": "train",
    "matplotlib": "report",
    "jinja2": "report",
    "sklearn": "digits",
    "onnx": "onnx",
    "onnxruntime": "bench",
    "openvino": "bench",
    "MNN": "bench",
    "nncf": "bench",
}


def to_install(package: str) -> str:
    """What pip is to install, as a shell takes it, for a package by the name that is imported: the
    extra that brings it, else the package itself."""
    extra = EXTRAS.get(package)
    return f"'kernelprune[{extra}]'" if extra else package


class Error(Exception):
    """Base class: ``except kernelprune.Error`` catches every error raised on purpose.

    Its text is plain: messages quote names and values of files, which may hold anything.
    """

    def __str__(self) -> str:
        return plain(super().__str__(), keep="\n")


class FormatError(Error):
    """A file is not a valid kernelprune model (truncated, corrupt, hostile, newer version)."""


class UnsupportedOperator(Error):
    """A model uses an operator that has no counterpart here; names the node and its source line."""


class ShapeError(Error):
    """An input has the wrong shape or type."""


class MissingPackage(Error, ImportError):
    """A package that this part needs is not installed; says what to type."""


class SparsityWarning(UserWarning):
    """A model has zeros that the engine gains nothing from."""


class UnsupportedWarning(UserWarning):
    """A model that is about to be pruned has operators that the engine cannot run: pruning goes
    on, but export will refuse it."""


class QuantizationWarning(UserWarning):
    """A part of a model that another tool has quantised cannot be integers, and stays float32."""


class DeviceError(Error):
    """The device or instruction set that was asked for is not available; says why."""
