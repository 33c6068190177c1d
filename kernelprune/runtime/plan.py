"""A saved plan: which way of computing each layer was chosen, for one model file and ISA.

The file is JSON, and nothing in it is trusted: a plan can make an engine slower, never wrong.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from kernelprune.errors import Error
from kernelprune.files import read_bytes, write_text
from kernelprune.runtime.options import PRECISIONS
from kernelprune.text import plain, read_json

_FORMAT = "kernelprune-plan"
_VERSION = 1
_MAX_BYTES = 64 << 20  # 65,536 layers, three modes, the longest names
_MAX_TEXT = 4096
_MAX_LANES = 1024


@dataclass(frozen=True)
class Plan:
    """What an engine does with each layer.

    Attributes:
        model: SHA-256 of the model file, in hexadecimal.
        isa: Instruction set that it is for.
        precision: ``"fast"`` or ``"strict"``.
        choices: ``{(lanes, layer): candidate}``; other layers take what should cost least.
        planar_nodes: ``{lanes: nodes}``, how many nodes at the beginning run one image at a time in
            front of ``lanes`` images side by side.
        seconds: ``{lanes: seconds}``, the measured time of ``lanes`` images side by side; empty if
            nothing was measured.
        threads: Threads that it was measured with. It may be used with any number.
        kernelprune: Version that wrote it.
        processor: Processor that it was measured on.
    """

    model: str
    isa: str
    precision: str
    choices: Mapping[tuple[int, str], str]
    planar_nodes: Mapping[int, int]
    seconds: Mapping[int, float]
    threads: int = 1
    kernelprune: str = ""
    processor: str = ""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the plan; ``path`` holds the old file or the whole new one.

        Raises:
            Error: The file cannot be written.
        """
        layers: dict[str, dict[str, str]] = {}
        for (lanes, layer), candidate in sorted(self.choices.items()):
            layers.setdefault(str(lanes), {})[layer] = candidate
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "model": self.model,
            "isa": self.isa,
            "precision": self.precision,
            "threads": self.threads,
            "kernelprune": self.kernelprune,
            "processor": self.processor,
            "planar_nodes": {str(lanes): value for lanes, value in self.planar_nodes.items()},
            "seconds": {str(lanes): value for lanes, value in sorted(self.seconds.items())},
            "choices": layers,
        }
        write_text(path, json.dumps(content, indent=1) + "\n", "the plan")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Reads a plan.

        Raises:
            Error: No such file, or it is not a plan.
        """
        content = read_bytes(path, _MAX_BYTES)
        try:
            return _from_json(read_json(content))
        except ValueError as error:
            raise Error(f"{path}: not a plan of this version: {error}") from None

    def check_model(self, digest: str, isa: str, precision: str, source: str) -> None:
        """Raises Error if the plan is for another model file, instruction set or precision."""
        for what, have, want in (
            ("model file", self.model, digest),
            ("instruction set", self.isa, isa),
            ("precision", self.precision, precision),
        ):
            if have != want:
                raise Error(
                    f"{source} is for another {what} ({have[:16]}, not {want[:16]}); tune again"
                )


def _from_json(content: Any) -> Plan:
    """Raises ValueError, with what is wrong."""
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"its format is not {_FORMAT!r}")
    if content.get("version") != _VERSION:
        raise ValueError(f"it has version {_short(content.get('version'))}, wanted {_VERSION}")
    texts = {name: _text(content.get(name), name) for name in ("model", "isa", "precision")}
    if texts["precision"] not in PRECISIONS:
        raise ValueError(f"precision {_short(texts['precision'])}")
    threads = content.get("threads")
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads < 1 << 31:
        raise ValueError(f"threads {_short(threads)}")
    planar_nodes = {}
    for lanes, value in _dict(content.get("planar_nodes"), "planar_nodes").items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise ValueError(f"planar_nodes {_short(value)}")
        planar_nodes[_lanes(lanes)] = value
    seconds = {}
    for lanes, value in _dict(content.get("seconds"), "seconds").items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"seconds {_short(value)}")
        if not 0 < value < 1e9 or not math.isfinite(value):
            raise ValueError(f"seconds {_short(value)}")
        seconds[_lanes(lanes)] = float(value)
    choices = {}
    for lanes, layers in _dict(content.get("choices"), "choices").items():
        for layer, candidate in _dict(layers, "choices").items():
            choices[_lanes(lanes), _text(layer, "layer")] = _text(candidate, "candidate")
    return Plan(
        **texts,
        choices=choices,
        planar_nodes=planar_nodes,
        seconds=seconds,
        threads=threads,
        kernelprune=_text(content.get("kernelprune"), "kernelprune"),
        processor=_text(content.get("processor"), "processor"),
    )


def _short(value: object) -> str:
    return plain(repr(value)[:40])


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is {_short(value)}, not a text")
    if len(value) > _MAX_TEXT or any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"{what} {_short(value)}")
    return value


def _dict(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is {_short(value)}, not an object")
    return value


def _lanes(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 4):
        raise ValueError(f"lanes {_short(text)}")
    if not 1 <= int(text) <= _MAX_LANES:
        raise ValueError(f"lanes {text}")
    return int(text)


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def version() -> str:
    """The installed version of kernelprune; empty in a source tree that was never installed."""
    try:
        return metadata.version("kernelprune")
    except metadata.PackageNotFoundError:
        return ""
