"""capture: a model becomes a graph of file ops. export: that graph is checked and written."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import torch
import torch.utils._pytree
from torch import nn

from kernelprune.errors import Error, QuantizationWarning, SparsityWarning
from kernelprune.format.writer import to_bytes, write
from kernelprune.frontends.torch.accepted import as_model_wants, check_inputs, reason, unwrapped
from kernelprune.frontends.torch.calling import call
from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.frontends.torch.sizes import check_dynamic, with_free_sizes
from kernelprune.frontends.torch.to_torch import to_torch
from kernelprune.frontends.torch.trace import eval_mode, trace
from kernelprune.frontends.torch.weights import check_finite, check_fits_float32, idle_zeros
from kernelprune.graph import passes
from kernelprune.graph.ir import Graph
from kernelprune.graph.quantization import quantizations
from kernelprune.graph.rounded import round_to_bytes
from kernelprune.runtime.preprocessing import Preprocessing, labels_for, labels_of
from kernelprune.runtime.trial import run_bytes

TOLERANCE = 1e-4
# What Winograd's method may round more than that in a network that is sensitive to it.
_WINOGRAD_TOLERANCE = 1e-2
# Of what torch's float32 loses: the engine adds up in another order, and where torch's errors
# happen to cancel, its own need not. Beyond the last a comparison says nothing.
_FLOAT32_LOSSES = 10
_MAX_TOLERANCE = 1e-2

# Of a model that another tool has quantised: where a sum lies between two bytes, float32 may take
# the other one, and layers behind it hand that on.
_OTHER_BYTES = 5e-2
_MAX_NOTES = 5

Inputs = torch.Tensor | tuple[torch.Tensor, ...]


def capture(model: nn.Module, x: Inputs, *, keep_dead: bool = False) -> Graph:
    """The model in eval mode as a graph that holds only the ops of a model file.

    BN is folded (in float64), activations and residual adds are fused, groups become connection
    patterns, dead channels are removed exactly (not with ``keep_dead``). ``x``: an example input
    ``[N, C, H, W]`` or ``[N, F]``, or a tuple of them. Weights are float64 for a float64 model,
    else float32. Raises what trace raises.
    """
    graph, notes = _lowered(trace(unwrapped(model), x), keep_dead)
    _warn_of(notes)
    return graph


def lower(graph: Graph) -> Graph:
    """A traced graph as ``export`` would write it, in float32; the traced one is used up. Raises
    Error for weights beyond float32."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # said by the next check
        _to_float32(graph)
    check_fits_float32(graph)
    return graph


def _lowered(graph: Graph, keep_dead: bool) -> tuple[Graph, list[str]]:
    """The graph, and what stays float32 in it though another tool has quantised it."""
    dtype = passes.float_type(graph)
    passes.run_all(graph, keep_dead=keep_dead)
    notes = round_to_bytes(graph)
    passes.to_dtype(graph, dtype)
    return graph, notes


def quantised(graph: Graph) -> GraphModel:
    """A traced graph that another tool has quantised as a module that computes its bytes. Warns
    (QuantizationWarning) of what stays float32. Raises Error for weights beyond float32."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # said by the next check
        notes = _to_float32(graph)[1]
    check_fits_float32(graph)
    _warn_of(notes, 5)
    return GraphModel(graph)


def _warn_of(notes: Sequence[str], level: int = 3) -> None:
    """For the caller of the function that calls this, or one ``level`` further out."""
    if notes:
        more = f"; and {len(notes) - _MAX_NOTES} more" if len(notes) > _MAX_NOTES else ""
        shown = "; ".join(notes[:_MAX_NOTES])
        warnings.warn(f"{shown}{more}", QuantizationWarning, stacklevel=level)


def export(
    model: nn.Module,
    x: Inputs,
    path: str | os.PathLike[str],
    *,
    dynamic: Sequence[str] = (),
    preprocessing: Preprocessing | Mapping[str, Any] | str | None = None,
    labels: Sequence[str] | None = None,
    **provenance: str | float,
) -> Graph:
    """Captures ``model``, checks the result on ``x`` and writes it to ``path``; returns the graph.
    A quantised model is written as it is; the engine's bytes must be its bytes. One that torch.ao
    or NNCF has quantised is written in int8; what of it a file cannot express stays float32, with a
    QuantizationWarning that names it.

    ``dynamic``: ``("height", "width")`` or one of them leaves these sides of the input map free;
    the model is captured and checked at a second size too, and Error names a node that keeps to one
    size.

    ``preprocessing`` says how an image becomes the input: a
    :class:`kernelprune.runtime.Preprocessing`, some of its attributes as a dict, or a name:
    ``"imagenet"``, ``"unit"`` (0 to 1), ``"signed"`` (-1 to 1), ``"bytes"`` (0 to 255). ``labels``:
    names of the classes, one for each number of the first output. ``Engine.classify`` and
    ``kernelprune run FILE photo.jpg`` use both.

    ``provenance`` (source=, method=, accuracy=, ...) goes into the file as strings, beside source
    (the model's class), created_by, connections and density (kept ones of the model's). The engine
    must agree with the model on ``x`` to a relative L2 error of 1e-4 (where Winograd's method
    rounds more, without it). Where float32 itself loses more in torch, it must agree with the model
    in float64 to ten times what torch's float32 loses, at most 1e-2. Else Error, which names what
    differs, and nothing is written. Also raises what capture and write raise, and Error for NaN or
    infinite weights, and for ``dynamic`` misspelt. Warns (SparsityWarning) of zeros that are no
    dropped connections.
    """
    model, inputs = unwrapped(model), check_inputs(x)
    for option in ("dynamic", "preprocessing", "labels"):
        for name in difflib.get_close_matches(option, provenance, 1, 0.7):
            raise Error(f"export has no option {name!r}; did you mean {option!r}?")
    use = _Use.of(preprocessing, labels, inputs)
    if isinstance(model, GraphModel):
        return _export_graph(model, inputs, path, dynamic, use, provenance)
    graph = trace(model, x)
    check_finite(graph, inputs)
    hint = idle_zeros(graph)
    total = graph.all_connections()
    norms = {node.name: node.shape[0] for node in graph.nodes if node.op == "batch_norm"}
    known = {node.name for node in graph.nodes}
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # said by the next check
        notes = _to_float32(graph)[1]
    check_fits_float32(graph)
    # A batch norm that folded into no layer has become one, with a connection a channel.
    total += sum(norms.get(node.name, 0) for node in graph.nodes)
    # So have integers beyond a signed byte, each a connection of its own.
    total += sum(node.all_connections() for node in graph.nodes if node.name not in known)
    _check_same(model, graph, inputs, rounded=bool(notes))
    if dynamic:
        graph, larger = with_free_sizes(
            graph, check_dynamic(dynamic, inputs), inputs, lambda x: _for_engine(model, x)
        )
        _check_same(model, graph, (larger,), rounded=bool(notes))
    described = _described(graph, type(model).__name__, total) | use.metadata(graph)
    write(graph, path, described | provenance)
    _warn_of(notes)
    if hint is not None:
        warnings.warn(hint, SparsityWarning, stacklevel=2)
    return graph


@dataclasses.dataclass(frozen=True)
class _Use:
    """What a file says of how its network is used."""

    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None

    @classmethod
    def of(cls, preprocessing: Any, labels: Any, inputs: tuple[torch.Tensor, ...]) -> _Use:
        """Raises Error."""
        if preprocessing is not None:
            preprocessing = Preprocessing.of(preprocessing, tuple(inputs[0].shape[1:]))
        return cls(preprocessing, None if labels is None else labels_of(labels))

    def metadata(self, graph: Graph) -> dict[str, str]:
        """Raises Error unless there is a label for each number of the first output."""
        found = {}
        if self.preprocessing is not None:
            found["preprocessing"] = self.preprocessing.to_json()
        if self.labels is not None:
            labels = labels_for(self.labels, graph.shapes()[graph.outputs[0]])
            found["labels"] = json.dumps(labels)
        return found


def _described(graph: Graph, source: str, total: int) -> dict[str, str]:
    """``total``: connections of the model when dense."""
    kept = graph.kept_connections()
    described = {
        "source": source,
        "created_by": f"kernelprune {_version()}",
        "connections": f"{kept}/{total}",
        "density": f"{kept / total if total else 1.0:.6g}",
    }
    return described | ({"precision": "int8"} if quantizations(graph) else {})


def _export_graph(
    model: GraphModel,
    inputs: tuple[torch.Tensor, ...],
    path: str | os.PathLike[str],
    dynamic: Sequence[str],
    use: _Use,
    provenance: dict[str, Any],
) -> Graph:
    """Of a model that is a graph already, such as a quantised one."""
    if dynamic:
        raise Error("dynamic sizes: quantise a model file that was exported with them")
    graph = model.graph
    images = tuple(tensor.detach().cpu().contiguous() for tensor in inputs)
    # The same bytes, but for those made by ops whose float32 sums have no one order.
    error = difference(run(model, inputs), _by_engine(graph, images)[0])
    if error > _MAX_TOLERANCE:
        raise Error(_fault_of_the_engine(graph, images, error))
    described = _described(graph, model.source, graph.all_connections()) | use.metadata(graph)
    write(graph, path, described | provenance)
    return graph


def _to_float32(graph: Graph) -> tuple[Graph, list[str]]:
    """As ``_lowered``, in float32."""
    _, notes = _lowered(graph, keep_dead=False)
    passes.to_dtype(graph, np.float32)
    return graph, notes


def _for_engine(model: nn.Module, x: torch.Tensor) -> Graph:
    return _to_float32(trace(model, x))[0]


def _version() -> str:
    try:
        return metadata.version("kernelprune")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _check_same(
    model: nn.Module, graph: Graph, inputs: tuple[torch.Tensor, ...], rounded: bool
) -> None:
    """``rounded``: does the model round what the graph does not?"""
    expected = run(*without_rounding(model, inputs))
    images = tuple(tensor.detach().cpu().contiguous() for tensor in inputs)
    found = _by_engine(graph, images)[0]
    if rounded or quantizations(graph):
        _check_same_bytes(graph, images, expected, found)
        return
    error = difference(expected, found)
    if error <= TOLERANCE:
        return
    if error <= _WINOGRAD_TOLERANCE:
        found = _by_engine(graph, images, "strict")[0]
        error = difference(expected, found)
        if error <= TOLERANCE:
            return
    exact, limit = _in_float64(model, inputs)
    if difference(exact, found) <= limit:
        return
    captured = difference(exact, run(to_torch(graph), images))
    if captured <= limit:
        raise Error(_fault_of_the_engine(graph, images, error))
    raise Error(
        "the captured graph does not compute what the model computes: the output differs by "
        f"{captured:.2g} (relative L2), more than {limit:g}"
    )


def _check_same_bytes(
    graph: Graph,
    images: tuple[torch.Tensor, ...],
    expected: list[torch.Tensor],
    found: list[torch.Tensor],
) -> None:
    """Of a model that another tool has quantised; ``found`` by the engine."""
    by_rules = run(GraphModel(graph), images)
    error = difference(by_rules, found)
    if error > _MAX_TOLERANCE:
        raise Error(_fault_of_the_engine(graph, images, error))
    error = difference(expected, by_rules)
    if error > _OTHER_BYTES:
        raise Error(
            "the captured bytes do not compute what the quantised model computes: the output "
            f"differs by {error:.2g} (relative L2), more than {_OTHER_BYTES:g}"
        )


def _in_float64(
    model: nn.Module, inputs: tuple[torch.Tensor, ...]
) -> tuple[list[torch.Tensor], float]:
    """The model's outputs in float64, and how far from them the engine, whose numbers are float32,
    may be. A model that cannot be computed in float64 is taken as it is."""
    try:
        exact, single = (
            run(copy.deepcopy(model).to(dtype), _as_floats(inputs, dtype))
            for dtype in (torch.float64, torch.float32)
        )
    except Exception:  # code of the user's that no other type suits, or no copy
        return run(*without_rounding(model, inputs)), TOLERANCE
    lost = difference(exact, single)
    return exact, min(max(TOLERANCE, _FLOAT32_LOSSES * lost), _MAX_TOLERANCE)


def _as_floats(inputs: tuple[torch.Tensor, ...], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    return tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)


def _by_engine(
    graph: Graph, images: tuple[torch.Tensor, ...], precision: str = "fast"
) -> tuple[list[torch.Tensor], dict[str, str]]:
    """All outputs as float64 tensors, and the kernels of each node."""
    given = [
        (image if value.dtype == "u8" else image.float()).numpy()
        for value, image in zip(graph.inputs, images, strict=True)
    ]
    found, kernels = run_bytes(to_bytes(graph), given, precision)
    return [torch.from_numpy(output).double() for output in found], kernels


def _fault_of_the_engine(graph: Graph, images: tuple[torch.Tensor, ...], error: float) -> str:
    """Names the first node whose value is not that of the same graph in torch."""
    message = (
        f"the engine does not compute what the model computes: the output differs by {error:.2g} "
        f"(relative L2), more than {TOLERANCE:g}"
    )
    open_graph = dataclasses.replace(graph, outputs=[node.output for node in graph.nodes])
    found, kernels = _by_engine(open_graph, images)
    for node, have, want in zip(graph.nodes, found, run(to_torch(open_graph), images), strict=True):
        if not (own := difference([want], [have])) <= TOLERANCE:
            message += (
                f", from node '{node.name}' on ({node.op} by {kernels[node.name]}: {own:.2g})"
            )
            break
    return message + "; this is a fault of kernelprune, please report it"


def without_rounding(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[nn.Module, tuple]:
    """A model in half precision as a float32 one of the same weights, whose outputs can be compared
    to the last digits; any other as it is."""
    if all(p.dtype in (torch.float32, torch.float64) for p in model.parameters()):
        return model, inputs
    wide = tuple(x.float() if x.is_floating_point() else x for x in inputs)
    return copy.deepcopy(model).float(), wide


def run(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """All outputs of ``model`` in eval mode, as float64 tensors on the CPU, ``[N, 1]`` for ``[N]``.
    Raises Error when the model raises anything."""
    with torch.no_grad(), eval_mode(model):
        # Clones: it may overwrite its input.
        given = tuple(tensor.clone() for tensor in as_model_wants(model, inputs))
        try:
            outputs = call(model, given)
        except Exception as error:  # the model is the user's
            raise Error(
                f"{type(model).__name__} cannot compute the example input: {reason(error)}"
            ) from error
    leaves = torch.utils._pytree.tree_leaves(outputs)
    found = [leaf.detach().cpu().double() for leaf in leaves if isinstance(leaf, torch.Tensor)]
    return [leaf[:, None] if leaf.dim() == 1 else leaf for leaf in found]


def difference(expected: list[torch.Tensor], found: list[torch.Tensor]) -> float:
    """The largest relative L2 error over all outputs; infinite when shapes differ."""
    if [want.shape for want in expected] != [have.shape for have in found]:
        return float("inf")
    errors = [
        float((want - have).norm() / want.norm()) if want.norm() > 0 else float(have.norm())
        for want, have in zip(expected, found, strict=True)
    ]
    # max() would pass over a NaN that is not in the first place
    return float("inf") if any(error != error for error in errors) else max(errors, default=0.0)
