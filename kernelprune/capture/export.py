"""capture: a model becomes a graph of file ops. export: that graph is checked and written."""

from __future__ import annotations

import os
from importlib import metadata
from typing import Any

import torch
from torch import nn

from kernelprune.capture import passes
from kernelprune.capture.to_torch import to_torch
from kernelprune.capture.trace import eval_mode, trace
from kernelprune.errors import Error
from kernelprune.format.graph import Graph
from kernelprune.format.writer import write

TOLERANCE = 1e-4

Inputs = torch.Tensor | tuple[torch.Tensor, ...]


def capture(model: nn.Module, x: Inputs, *, keep_dead: bool = False) -> Graph:
    """The model in eval mode as a graph that holds only the ops of a model file.

    BN is folded (in float64), activations and residual adds are fused, groups become connection
    patterns, dead channels are removed exactly (not with ``keep_dead``). ``x``: an example input
    ``[N, C, H, W]`` or ``[N, F]``, or a tuple of them. Weights are float64 for a float64 model,
    else float32. Raises what trace raises.
    """
    graph = trace(model, x)
    dtype = passes.float_type(graph)
    passes.run_all(graph, keep_dead=keep_dead)
    passes.to_dtype(graph, dtype)
    return graph


def export(model: nn.Module, x: Inputs, path: str | os.PathLike[str], **provenance: Any) -> Graph:
    """Captures ``model``, checks the result on ``x`` and writes it to ``path``; returns the graph.

    ``provenance`` (source=, method=, accuracy=, ...) goes into the file as strings, beside source
    (the model's class), created_by, connections and density. The file's graph, in float32, must
    agree with the model on ``x`` to a relative L2 error of 1e-4; else Error, and nothing is
    written. Also raises what capture and write raise.
    """
    graph = capture(model, x)
    passes.to_dtype(graph, "float32")
    _check_same(model, graph, x if isinstance(x, tuple) else (x,))
    kept, total = graph.kept_connections(), graph.all_connections()
    described = {
        "source": type(model).__name__,
        "created_by": f"kernelprune {_version()}",
        "connections": f"{kept}/{total}",
        "density": f"{kept / total if total else 1.0:.6g}",
        **provenance,
    }
    write(graph, path, described)
    return graph


def _version() -> str:
    try:
        return metadata.version("kernelprune")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _check_same(model: nn.Module, graph: Graph, inputs: tuple[torch.Tensor, ...]) -> None:
    with torch.no_grad(), eval_mode(model):
        expected = _flat(model(*inputs))
    twin = to_torch(graph)
    with torch.no_grad():
        found = _flat(twin(*(tensor.detach().cpu().float() for tensor in inputs)))
    for name, want, have in zip(graph.outputs, expected, found, strict=True):
        want = want.detach().cpu().double()
        error = (want - have.double()).norm() / want.norm().clamp_min(1e-30)
        if want.norm() == 0 and have.norm() == 0:
            continue
        if not error <= TOLERANCE:
            raise Error(
                f"the captured graph does not compute what the model computes: output '{name}' "
                f"differs by {error:.2g} (relative L2), more than {TOLERANCE:g}"
            )


def _flat(outputs: Any) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if leaf is not None]
