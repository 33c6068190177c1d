"""What ``export`` does: a checkpoint or an ONNX file becomes a model file."""

from __future__ import annotations

from pathlib import Path

from kernelprune.cli.parse import parse_batches
from kernelprune.errors import Error
from kernelprune.graph.ir import Graph


def export_any(
    file: Path | None, source: Path | None, out: Path, *, evaluate: bool, size: str | None
) -> Graph:
    """Writes ``out`` and returns its graph. ``size``: per image, numbers with commas.

    Raises Error unless there is either an ONNX file or a checkpoint, and what reading and exporting
    these raises.
    """
    if (file is None) == (source is None):
        raise Error("say what to export: net.onnx, or --from with a checkpoint")
    if file is None:
        from kernelprune.train import ExportOptions, export_run

        if size is not None:
            raise Error("--size is for ONNX files")
        assert source is not None
        return export_run(source, out, ExportOptions(evaluate=evaluate))
    return _export_onnx(file, out, size)


def _export_onnx(file: Path, out: Path, size: str | None) -> Graph:
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
    return export(as_module(graph), images, out, source=file.name)
