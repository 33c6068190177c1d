"""Writes ``kernelprune/keywords.pyi``: what functions take as ``**options``, for type checkers.

The options of a method are a dataclass (``kernelprune/prune/options.py``), and no type checker
turns a dataclass into keywords. ``make format`` runs this; a test compares.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import kernelprune
from kernelprune.compression.options import CompressOptions
from kernelprune.prune.criterion_options import ConnectionOptions, CriterionOptions, ScoreOptions
from kernelprune.prune.discrimination_options import DiscriminationOptions
from kernelprune.prune.options import Options
from kernelprune.prune.reconstruction.options import ReconstructionOptions
from kernelprune.prune.synaptic_options import SynapticOptions
from kernelprune.quantization.options import QuantizeOptions

STUB = Path(kernelprune.__file__).parent / "keywords.pyi"
CLASSES: tuple[type[Options], ...] = (
    CompressOptions,
    ConnectionOptions,
    CriterionOptions,
    DiscriminationOptions,
    QuantizeOptions,
    ReconstructionOptions,
    ScoreOptions,
    SynapticOptions,
)
_HEAD = '''\
"""Made by tests/typechecks/keywords.py from the options of the methods; there is no such module."""

from typing import TypedDict
'''


def stub() -> str:
    """The text of ``keywords.pyi``."""
    parts = [_HEAD]
    for cls in CLASSES:
        name = cls.__name__.replace("Options", "Keywords")
        fields = [f"    {entry.name}: {entry.type}\n" for entry in dataclasses.fields(cls)]
        parts.append(f"class {name}(TypedDict, total=False):\n{''.join(fields)}")
    return "\n".join(parts)


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
