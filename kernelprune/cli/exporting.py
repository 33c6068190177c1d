"""What ``export`` does: a checkpoint or an ONNX file becomes a model file."""

from __future__ import annotations

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
    if file is None:
        from kernelprune.train import ExportOptions, export_run

        if size is not None or preprocessing is not None or labels is not None:
            raise Error("--size, --preprocessing and --labels are for ONNX files")
        assert source is not None
        return export_run(source, out, ExportOptions(evaluate=evaluate))
    return _export_onnx(
        file,
        out,
        size,
        preprocessing=None if preprocessing is None else named_or_read(preprocessing),
        labels=None if labels is None else read_labels(labels),
    )


def named_or_read(given: str) -> str | dict[str, Any]:
    """Preprocessing by its name, or attributes from a file of json. Raises Error."""
    if given in PRESETS:
        return given
    if not given.endswith(".json"):
        names = ", ".join(PRESETS)
        raise Error(f"preprocessing {given!r}: must be one of {names}, or a file .json")
    try:
        found = read_json(read_bytes(given))
    except ValueError as error:
        raise Error(f"{given}: {error}") from None
    if not isinstance(found, dict):
        raise Error(f"{given}: is no object of json")
    return found


def read_labels(file: Path) -> list[str]:
    """Names of classes: a list in a file ``.json``, else one in each line. Raises Error."""
    content = read_bytes(file)
    if file.suffix == ".json":
        try:
            found = read_json(content)
        except ValueError as error:
            raise Error(f"{file}: {error}") from None
        return list(labels_of(found if isinstance(found, list) else ()))
    try:
        return list(labels_of(content.decode("utf-8").splitlines()))
    except UnicodeDecodeError as error:
        raise Error(f"{file}: byte {error.start} is not UTF-8") from None


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
