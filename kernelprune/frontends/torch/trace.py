"""From a torch model to an unfolded Graph: torch.export, then one table row per ATen operator."""

from __future__ import annotations

import torch
from torch import nn

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.refusal import Refusal, listed
from kernelprune.frontends.torch.accepted import (
    as_model_wants,
    check_inputs,
    check_module,
    check_weights,
    ordinary,
)
from kernelprune.frontends.torch.program import eval_mode, export_program
from kernelprune.frontends.torch.walk import Walk
from kernelprune.graph.ir import Graph

__all__ = ["eval_mode", "trace", "trace_all"]


def trace(
    model: nn.Module, x: torch.Tensor | tuple[torch.Tensor, ...], *, opaque: bool = False
) -> Graph:
    """The model in eval mode as a Graph, nothing folded.

    ``x`` is an example input ``[N, ...]`` (a tuple for several inputs, in the order of forward's
    parameters); only its shape and type count, and the batch stays dynamic: shapes in the graph are
    per image. Outputs may be nested; their names are the keys and positions that lead to them.
    Beside the ops of a file the graph may hold ``batch_norm``, and conv2d nodes have ``groups``.
    Every node carries ``module``, ``parameters`` and ``source``. The model's mode is restored.

    With ``opaque`` an unknown operator becomes a node with op "opaque" instead of an error.
    Raises UnsupportedOperator (names all such operators, their modules and source lines) and Error
    when torch.export cannot trace the model with a free batch size.
    """
    walk = _walked(model, x)
    if not walk.refusals or opaque:
        graph = walk.finish()
    if walk.refusals and not opaque:
        raise UnsupportedOperator(listed(walk.refusals))
    return graph


def trace_all(
    model: nn.Module, x: torch.Tensor | tuple[torch.Tensor, ...]
) -> tuple[Graph, list[Refusal]]:
    """``trace`` with opaque nodes, and what became one, with the reasons."""
    walk = _walked(model, x)
    return walk.finish(), walk.refusals


def _walked(model: nn.Module, x: torch.Tensor | tuple[torch.Tensor, ...]) -> Walk:
    check_module(model)
    check_weights(model)
    inputs = as_model_wants(model, check_inputs(x))
    walk = Walk(export_program(ordinary(model), inputs), model)
    walk.run()
    return walk
