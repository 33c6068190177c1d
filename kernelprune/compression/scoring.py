"""How near a network is to the dense one: both as files, run by the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import nn

from kernelprune.errors import Error
from kernelprune.frontends.torch.accepted import as_model_wants, reason
from kernelprune.frontends.torch.calling import call
from kernelprune.frontends.torch.trace import eval_mode
from kernelprune.prune.batches import Inputs
from kernelprune.runtime import Engine

# Of a model, larger is better.
Evaluate = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Likeness:
    """``cosine`` of the outputs about the dense network's means, of several outputs the least;
    ``agreement``: share of the images with the same top class, None for a network whose output is
    not one row of scores an image."""

    cosine: float
    agreement: float | None


def outputs_of(path: Path, batches: Sequence[Inputs], threads: int) -> list[np.ndarray]:
    """All outputs of a model file, ``[N, ...]``."""
    engine = Engine(path, threads=threads)
    rows = [_run(engine, batch) for batch in batches]
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def likeness(dense: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> Likeness:
    """Of the outputs for the same images."""
    cosines = [_cosine(one, two) for one, two in zip(dense, other, strict=True)]
    first = dense[0]
    scores = len(dense) == 1 and first.ndim == 2 and first.shape[1] > 1
    agreement = float(np.mean(first.argmax(1) == other[0].argmax(1))) if scores else None
    return Likeness(min(cosines), agreement)


def _cosine(dense: np.ndarray, other: np.ndarray) -> float:
    """About the mean of the dense outputs, so that a shift of all images counts too."""
    mean = dense.astype(np.float64).mean(0)
    one, two = dense - mean, other - mean
    norms = float(np.linalg.norm(one)), float(np.linalg.norm(two))
    if min(norms) == 0.0:
        return 1.0 if np.allclose(one, two, atol=1e-6) else 0.0
    found = float((one * two).sum() / (norms[0] * norms[1]))
    return found if math.isfinite(found) else 0.0


class FileModel(nn.Module):
    """A model file as a module in eval mode that returns what the model returned which it was made
    of; the engine computes it. ``evaluate`` is called with these, so that what is told of a file is
    true of that file. Its one parameter is empty, and tells that it is on the CPU."""

    def __init__(self, path: Path, form: OutputForm, threads: int):
        super().__init__()
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)
        self._engine, self._form = Engine(path, threads=threads), form
        self.eval()

    def forward(self, *inputs: torch.Tensor) -> Any:
        device = inputs[0].device
        given = tuple(x.detach().cpu() for x in inputs)
        found = [torch.from_numpy(output).to(device) for output in _run(self._engine, given)]
        return self._form.restored(found)


@dataclass(frozen=True)
class OutputForm:
    """What a model returns: ``axes`` of each tensor, in the order of the file's outputs."""

    spec: pytree.TreeSpec
    axes: tuple[int, ...]

    @staticmethod
    @torch.no_grad()
    def of(model: nn.Module, example: Inputs) -> OutputForm:
        """Raises Error when the model cannot compute the example."""
        with eval_mode(model):
            try:
                result = call(model, tuple(x.clone() for x in as_model_wants(model, example)))
            except Exception as error:  # the model is the user's
                raise Error(
                    f"{type(model).__name__} cannot compute the images: {reason(error)}"
                ) from error
        leaves, spec = pytree.tree_flatten(result)
        return OutputForm(spec, tuple(leaf.dim() for leaf in leaves if torch.is_tensor(leaf)))

    def restored(self, outputs: list[torch.Tensor]) -> Any:
        found = [
            output[:, 0] if axes == 1 and output.dim() == 2 else output
            for output, axes in zip(outputs, self.axes, strict=True)
        ]
        if self.spec.num_leaves != len(found):  # something of it was no tensor
            return tuple(found)
        return pytree.tree_unflatten(found, self.spec)


def evaluated(evaluate: Evaluate, model: nn.Module, name: str = "evaluate") -> float:
    """What the user's function gives for a model. Raises Error unless it is a finite number."""
    try:
        value = float(evaluate(model))
    except Error:
        raise
    except Exception as error:  # the function is the user's
        raise Error(f"{name} fails: {type(error).__name__}: {reason(error)}") from error
    if not math.isfinite(value):
        raise Error(f"{name} gives {value}, not a number of which more is better")
    return value


def _run(engine: Engine, batch: Inputs) -> list[np.ndarray]:
    arrays = [x.numpy() if x.dtype == torch.uint8 else x.float().numpy() for x in batch]
    found = engine.run(*arrays)
    return list(found) if isinstance(found, tuple) else [found]
