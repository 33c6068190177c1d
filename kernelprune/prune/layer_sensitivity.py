"""Which layers suffer: the accuracy with one layer pruned at a time, over densities."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from kernelprune.columns import Column, text_table
from kernelprune.errors import Error
from kernelprune.files import name_of, replacing
from kernelprune.prune.batches import Loss
from kernelprune.prune.checks import check_number
from kernelprune.prune.criterion_options import ScoreOptions
from kernelprune.prune.layers import Selector, read_layers
from kernelprune.prune.options import takes
from kernelprune.prune.scores import Connections, Gradients, connection_scores
from kernelprune.prune.threshold import select
from kernelprune.prune.weights import raw_weight
from kernelprune.text import plain

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kernelprune.keywords import ScoreKeywords


@dataclass(frozen=True)
class Sensitivity:
    """``values[layer][i]``: what was measured with that layer alone at ``densities[i]``; ``whole``:
    with nothing pruned. ``print`` shows a table."""

    criterion: str
    densities: tuple[float, ...]
    whole: float
    values: dict[str, list[float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists (json)."""
        return {
            "criterion": self.criterion,
            "densities": list(self.densities),
            "whole": self.whole,
            "values": self.values,
        }

    def __str__(self) -> str:
        # The largest densities say least: there every layer still does well.
        places = sorted(range(len(self.densities)), key=lambda place: self.densities[place])
        columns = [Column("layer", "name")]
        columns += [
            Column(f"{density:.3g}", spare=places.index(place))
            for place, density in enumerate(self.densities)
        ]
        rows = [[name, *(f"{value:.4f}" for value in row)] for name, row in self.values.items()]
        return f"{text_table(columns, rows)}\nnothing pruned  {self.whole:.4f}"

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws one line per layer into an image file. Needs matplotlib. Raises Error when the file
        cannot be written, or matplotlib does not know its ending."""
        try:
            import matplotlib
        except ImportError as error:
            raise Error("plots need matplotlib: pip install 'kernelprune[report]'") from error
        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(7, 4.5))
        for name, row in self.values.items():
            axes.plot(self.densities, row, marker="o", markersize=3, label=_label(name))
        axes.axhline(self.whole, color="black", linewidth=0.8, linestyle="--")
        axes.set_xlabel("density of the one layer that is pruned")
        axes.set_ylabel("measured")
        axes.legend(fontsize=6, ncols=2)
        form = os.path.splitext(name_of(path))[1].removeprefix(".") or "png"
        try:
            with replacing(path, "the plot") as file:
                figure.savefig(file, format=form, bbox_inches="tight")
        except ValueError as error:
            raise Error(f"{path}: cannot write the plot: {error}") from error
        finally:
            pyplot.close(figure)


def _label(name: str) -> str:
    """A layer's name in a legend, which hides names that begin with _ and takes $ for formulas."""
    shown = plain(name).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


@takes(ScoreOptions)
def sensitivity(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    *,
    densities: Sequence[float] = (0.5, 0.3, 0.2, 0.1, 0.05),
    x: torch.Tensor | tuple[torch.Tensor, ...] | None = None,
    loader: Iterable[Any] | None = None,
    loss: Loss = functional.cross_entropy,
    ignore: Iterable[Selector] | Selector = (),
    include: Iterable[Selector] | Selector = (),
    **options: Unpack[ScoreKeywords],
) -> Sensitivity:
    """Prunes each layer alone to each density, by ``criterion``, and calls ``evaluate(model)``,
    such as the accuracy on validation images. No training; the model is left as it was.

    The other arguments are those of ``prune_connections``. One call of ``evaluate`` per layer and
    density, and one more.
    """
    chosen = ScoreOptions.from_dict(options)
    for density in densities:
        check_number("densities: density", density, above=0, most=1)
    _, layers = read_layers(model, x, ignore=ignore, include=include, masked=True)
    layers = [layer for layer in layers if layer.prunable]
    gradients = Gradients(model, layers, loader, chosen.samples, loss)
    values: dict[str, list[float]] = {}
    for layer in layers:
        weight = raw_weight(layer.module)
        original = weight.detach().clone()
        connections = Connections(layer.name, layer.module.weight.detach(), chosen.seed, gradients)
        scores = {layer.name: connection_scores(chosen.criterion, connections)}
        values[layer.name] = []
        for density in densities:
            mask = select(scores, density=density, scope="global")[layer.name]
            try:
                with torch.no_grad():
                    weight.mul_(mask.view(*mask.shape, *[1] * (weight.dim() - 2)))
                values[layer.name].append(float(evaluate(model)))
            finally:
                with torch.no_grad():
                    weight.copy_(original)
    return Sensitivity(chosen.criterion, tuple(densities), float(evaluate(model)), values)
