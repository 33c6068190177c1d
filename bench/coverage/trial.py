"""One network: is it captured, and does the engine compute and take what torch does?

``python -m bench.coverage.trial FAMILY NAME FILE`` writes what was found into FILE, as one row of
``coverage.json``. It runs in a process of its own, which may be stopped at any time.
"""

from __future__ import annotations

import argparse
import collections
import copy
import json
import os
import re
import resource
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from bench.coverage.families import Shape, Subject, Unavailable, families
from bench.coverage.weights import images, make_plausible, settle_norms
from kernelprune.benchmarking import Candidate, measure
from kernelprune.errors import Error, UnsupportedOperator
from kernelprune.files import write_text
from kernelprune.format import write
from kernelprune.frontends.refusal import NO_COUNTERPART
from kernelprune.frontends.torch import capture
from kernelprune.frontends.torch.trace import trace_all
from kernelprune.prune import prune_connections
from kernelprune.prune.compact import compact
from kernelprune.runtime import Engine

BATCHES = (1, 3)
DENSITY = 0.1
# The limit of `export`, too: float32 sums in another order stay below.
TOLERANCE = 1e-4
# Networks that amplify rounding do so in torch's float32 as well.
_TIMES_TORCH, _LARGEST_TOLERANCE = 10.0, 1e-2
# Of the weights of norms, until torch's own float32 says something.
_GAINS = (1.0, 0.3, 0.1)
_CALLS = 7
_NO_COUNTERPART = "has no counterpart"

Arrays = list[np.ndarray]


def try_network(
    subject: Subject, folder: Path, *, timed: bool = True, pruned: bool = False
) -> dict[str, Any]:
    """What there is to say of a network, without the names; see ``docs/COVERAGE.md``.

    ``folder`` takes the model files. The keys: ``status`` (captured, wrong, unstable, refused,
    failed), ``reasons`` (operators, why, calls) and ``detail`` where it was not captured,
    ``results`` (the errors by size and batch), ``time``, ``pruned`` with what was found after
    pruning, and ``norm_gain`` where norms with weights around 1 made rounding grow too large.
    """
    for gain in _GAINS:
        make_plausible(subject.module, subject.shapes[-1], gain=gain)
        row = _tried(subject, folder, timed=timed, pruned=pruned)
        if "unstable" not in (row["status"], row.get("pruned", {}).get("status")):
            break
    return row | ({"norm_gain": gain} if gain < 1 else {})


def _tried(subject: Subject, folder: Path, *, timed: bool, pruned: bool) -> dict[str, Any]:
    model = subject.module
    row: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    found = _compared(model, subject.shapes, folder, "dense")
    row |= found
    if timed and "results" in found:
        row["time"] = _times(model, subject.shapes[0], folder / "dense-0.safetensors")
    if pruned and found["status"] == "captured":
        row["pruned"] = _pruned(model, subject.shapes, folder)
    return row


def _pruned(model: nn.Module, shapes: tuple[Shape, ...], folder: Path) -> dict[str, Any]:
    """The same for the network with a tenth of its connections, made compact."""
    x = images(1, shapes[0], seed=0)
    reference = copy.deepcopy(model)
    try:
        plan = prune_connections(reference, density=DENSITY, criterion="l1", x=x)
        settle_norms(reference, shapes[-1])
        smaller = compact(reference, x)
        found = _compared(smaller, shapes[:1], folder, "pruned", reference=reference)
    except Exception as error:  # what was found of the dense network stands, whatever this is
        return {"status": "failed", "detail": _told(error)}
    sizes = [sum(p.numel() for p in module.parameters()) for module in (reference, smaller)]
    return {"density": plan.density, "parameters_left": sizes[1] / max(sizes[0], 1), **found}


def _compared(
    model: nn.Module,
    shapes: tuple[Shape, ...],
    folder: Path,
    name: str,
    *,
    reference: nn.Module | None = None,
) -> dict[str, Any]:
    """Captures ``model`` for each shape and compares the engine with ``reference`` (itself)."""
    paths = [folder / f"{name}-{position}.safetensors" for position in range(len(shapes))]
    found: dict[str, Any] = {}
    for shape, path in zip(shapes, paths, strict=True):
        x = images(1, shape, seed=0)
        try:
            graph = capture(model, x)
        except UnsupportedOperator as error:
            return {"status": "refused", "reasons": _refused(model, x), "detail": _line(error)}
        except Error as error:
            return {"status": "failed", "detail": _line(error)}
        found.setdefault("macs", graph.macs())
        write(graph, path)
        del graph
    results = []
    wide = copy.deepcopy(reference or model).double()
    for shape, path in zip(shapes, paths, strict=True):
        x = images(max(BATCHES), shape, seed=100)
        want = outputs(wide, x.double())
        torch_own = outputs(reference or model, x)
        results += _errors(path, x, want, torch_own)
    return {"status": _status(results), **found, "results": results}


def _status(results: list[dict[str, Any]]) -> str:
    """ "unstable": torch's own float32 is so far from float64 that no error says anything."""
    if all(result["error"] <= _limit(result) for result in results):
        return "captured"
    steady = all(result["torch_error"] <= _LARGEST_TOLERANCE for result in results)
    return "wrong" if steady else "unstable"


def _limit(result: dict[str, Any]) -> float:
    return min(max(TOLERANCE, _TIMES_TORCH * result["torch_error"]), _LARGEST_TOLERANCE)


def _errors(path: Path, x: torch.Tensor, want: Arrays, torch_own: Arrays) -> list[dict[str, Any]]:
    """Relative L2 distance from float64 by batch, of the engine and of torch's float32.

    Where Winograd's method rounds more than the tolerance, the error without it counts and the one
    with it stands beside. ``contrast``: how much of the output differs between images.
    """
    rows = []
    precise: Engine | None = None
    engine = Engine(path)
    for batch in BATCHES:
        part = x[:batch].numpy()
        expected = [value[:batch] for value in want]
        row = {
            "shape": list(x.shape[1:]),
            "batch": batch,
            "error": distance(run(engine, part), expected),
            "torch_error": distance([value[:batch] for value in torch_own], expected),
            "contrast": contrast(want),
        }
        if row["error"] > _limit(row):
            precise = precise or Engine(path, precision="strict")
            row["fast_error"] = row["error"]
            row["error"] = distance(run(precise, part), expected)
        rows.append(row)
    return rows


def outputs(model: nn.Module, x: torch.Tensor) -> Arrays:
    """All tensors that the model returns, as float64."""
    with torch.no_grad():
        leaves = tree_leaves(model(x.clone()))
    return [leaf.double().numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def run(engine: Engine, x: np.ndarray) -> Arrays:
    """All outputs of the engine, as float64."""
    found = engine.run(x)
    arrays = found if isinstance(found, tuple) else (found,)
    return [array.astype(np.float64) for array in arrays]


def distance(found: Arrays, expected: Arrays) -> float:
    """Largest relative L2 distance over the outputs; infinite for other shapes or NaN."""
    if len(found) != len(expected):
        return float("inf")
    worst = 0.0
    for have, want in zip(found, expected, strict=True):
        if have.size != want.size:
            return float("inf")
        norm = float(np.linalg.norm(want))
        error = float(np.linalg.norm(have.reshape(want.shape) - want)) / max(norm, 1e-30)
        worst = max(worst, error if error == error else float("inf"))
    return worst


def contrast(expected: Arrays) -> float:
    """The share of the outputs that is not the same for all images; the least of all outputs."""
    shares = [
        float(np.linalg.norm(value - value.mean(axis=0)) / max(np.linalg.norm(value), 1e-30))
        for value in expected
    ]
    return min(shares, default=0.0)


def _refused(model: nn.Module, x: torch.Tensor) -> list[dict[str, Any]]:
    """Every operator without a counterpart, why, and the number of its calls."""
    calls = collections.Counter(
        (refusal.operator, _NO_COUNTERPART if refusal.reason == NO_COUNTERPART else refusal.reason)
        for refusal in trace_all(model, x)[1]
    )
    return [
        {"operator": operator, "reason": reason, "calls": count}
        for (operator, reason), count in sorted(calls.items())
    ]


def _times(model: nn.Module, shape: Shape, path: Path) -> dict[str, Any]:
    """Median milliseconds of one image on one thread, the three taking turns."""
    x = images(1, shape, seed=100)
    array = x.numpy()
    engine = Engine(path)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    x_last = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    def eager(module: nn.Module, image: torch.Tensor) -> object:
        with torch.inference_mode():
            return module(image)

    candidates = [
        Candidate("engine", lambda: engine.run(array)),
        Candidate("torch", lambda: eager(model, x)),
        Candidate("torch_channels_last", lambda: eager(last, x_last)),
    ]
    medians = {
        name: timing.median
        for name, timing in measure(candidates, iterations=_CALLS, warm_up=1).items()
    }
    best = min(medians["torch"], medians["torch_channels_last"])
    return {"shape": list(shape), **medians, "ratio": best / medians["engine"]}


def _line(error: BaseException) -> str:
    """The text of an error in one line that is not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"[^\s\"']*/site-packages/", "", text.replace(str(Path.cwd()) + os.sep, ""))
    return text if len(text) <= 300 else text[:297] + "..."


def _told(error: Exception) -> str:
    """An error of ours as it is, any other with its type."""
    return _line(error) if isinstance(error, Error) else f"{type(error).__name__}: {_line(error)}"


def _out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, MemoryError) or "allocate memory" in text or "bad_alloc" in text


def trial(family: str, name: str, *, timed: bool, pruned: bool) -> dict[str, Any]:
    """``try_network`` with every error as a status."""
    torch.manual_seed(0)
    try:
        subject = families()[family].build(name)
        with tempfile.TemporaryDirectory() as folder:
            return try_network(subject, Path(folder), timed=timed, pruned=pruned)
    except Unavailable as error:
        return {"status": "unavailable", "detail": _line(error)}
    except Exception as error:  # whatever a package or the engine raises is a result
        status = "memory" if _out_of_memory(error) else "failed"
        return {"status": status, "detail": _told(error)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.coverage.trial", description=__doc__)
    parser.add_argument("family")
    parser.add_argument("name")
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=int, default=180, help="of processor time")
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--no-time", action="store_true")
    parser.add_argument("--pruned", action="store_true")
    options = parser.parse_args(arguments)
    for kind, limit in (
        (resource.RLIMIT_DATA, int(options.gigabytes * 1e9)),
        (resource.RLIMIT_CPU, options.seconds),
    ):
        resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    row = trial(options.family, options.name, timed=not options.no_time, pruned=options.pruned)
    write_text(options.file, json.dumps(row), "the row")


if __name__ == "__main__":
    main()
