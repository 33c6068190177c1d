"""What ``export`` does: a checkpoint or an ONNX file becomes a model file."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from kernelprune.cli.parse import parse_batches
from kernelprune.errors import Error
from kernelprune.files import read_bytes
from kernelprune.graph.ir import Graph
from kernelprune.runtime.preprocessing import PRESETS, labels_of
from kernelprune.text import read_json


def export_any(
    file: Path | None,
    source: Path | None,
    out: Path,
    *,
    evaluate: bool,
    size: str | None,
    preprocessing: str | None = None,
    labels: Path | None = None,
) -> Graph:
    """Writes ``out`` and returns its graph. ``size``: per image, numbers with commas.
    ``preprocessing``: a name, or a file of json; ``labels``: see ``read_labels``.

    Raises Error unless there is either an ONNX file or a checkpoint, and what reading and exporting
    these raises.
    """
    if (file is None) == (source is None):
        raise Error("say what to export: net.onnx, or --from with a checkpoint")
    use: dict[str, Any] = {
        "preprocessing": None if preprocessing is None else named_or_read(preprocessing),
        "labels": None if labels is None else read_labels(labels),
    }
    if file is None:
        from kernelprune.train import ExportOptions, export_run

        if size is not None:
            raise Error("--size is for ONNX files")
        assert source is not None
        return export_run(source, out, ExportOptions(evaluate=evaluate), **use)
    return _export_onnx(file, out, size, **use)


def named_or_read(given: str) -> str | dict[str, Any]:
    """Preprocessing by its name, or attributes from a file of json. Raises Error."""
    if given in PRESETS:
        return given
    if not given.endswith(".json"):
        names = ", ".join(PRESETS)
        raise Error(f"preprocessing {given!r}: must be one of {names}, or a file .json")
    found = _json(Path(given))
    if not isinstance(found, dict):
        raise Error(f"{given}: is no object of json")
    return found


def read_labels(file: Path) -> list[str]:
    """Names of classes: a list in a file ``.json``, of a ``.csv`` as ``_column`` says, else
    one in each line. Raises Error."""
    if file.suffix == ".json":
        found = _json(file)
        return list(labels_of(found if isinstance(found, list) else ()))
    try:
        text = read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Error(f"{file}: byte {error.start} is not UTF-8") from None
    return list(labels_of(_column(file, text) if file.suffix == ".csv" else text.splitlines()))


def _json(file: Path) -> Any:
    """Raises Error."""
    try:
        return read_json(read_bytes(file))
    except ValueError as error:
        raise Error(f"{file}: {error}") from None


def _column(file: Path, text: str) -> list[str]:
    """Names from lines of ``name`` or ``index,name``, in the order of the indices from 0; a first
    line ``index,label`` says what the columns are, and may say more of them. Raises Error."""
    try:
        lines = [line for line in csv.reader(io.StringIO(text), strict=True) if line]
    except csv.Error as error:
        raise Error(f"{file}: {error}") from None
    head = [word.strip().lower() for word in lines[0]] if lines else []
    place = next((head.index(word) for word in ("label", "name", "class") if word in head), None)
    at = head.index("index") if "index" in head else None
    if place is not None:
        lines = lines[1:]
    else:
        place, at = len(head) - 1, None if len(head) == 1 else 0
    if any(len(line) != len(head) for line in lines) or (at is None and len(head) > 1):
        raise Error(f"{file}: its lines must be name, or index,name")
    if at is None:
        return [line[place] for line in lines]
    named = {line[at].strip(): line[place] for line in lines}
    if named.keys() != {*map(str, range(len(lines)))}:
        raise Error(f"{file}: the indices are not each of 0 to {len(lines) - 1} once")
    return [named[str(index)] for index in range(len(lines))]


def _export_onnx(file: Path, out: Path, size: str | None, **use: Any) -> Graph:
    import torch

    from kernelprune.frontends.onnx.load import as_module, read_onnx
    from kernelprune.frontends.torch import export

    graph = read_onnx(file, None if size is None else parse_batches(size, "--size"))
    generator = torch.Generator().manual_seed(0)
    images = tuple(
        torch.randint(256, (1, *value.shape), generator=generator, dtype=torch.uint8)
        if value.dtype == "u8"
        else torch.randn(1, *value.shape, generator=generator)
        for value in graph.inputs
    )
    return export(as_module(graph), images, out, source=file.name, **use)
