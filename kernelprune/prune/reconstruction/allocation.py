"""Which density each layer gets: the least error for a cost that the whole network may have.

Of each layer it is known what share rho of its outputs' variance is lost at each density, and what
that density costs (multiply-adds, or milliseconds). Layers pass on what they keep, so that
log(1 - rho), summed over the layers, is made as large as the cost allows: first comes what gains
most for its cost. With curves that are convex, which their lower hulls are, that is the best choice
(the Lagrange relaxation: all layers end at about the same gain for a unit of cost).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kernelprune.graph.ir import Node
from kernelprune.prune.layers import Layer
from kernelprune.prune.progress import Progress
from kernelprune.prune.reconstruction.choice import Blocks
from kernelprune.prune.reconstruction.fitting import equations_of, room_of
from kernelprune.prune.reconstruction.rebuild import Task, is_absorbed, survey
from kernelprune.prune.reconstruction.solvers import pursue, refit
from kernelprune.prune.reconstruction.statistics import Equations

# Of omp; the last stretch of a curve is a line.
_HIGHEST = 0.7
_GRID = np.geomspace(0.01, 1.0, 41)
_COARSE = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)  # for l1, which is fitted anew at each
_OUTPUTS = 16  # output channels of a layer that its curve is measured on
_MOST_LOST = 1 - 1e-4


@dataclass(frozen=True)
class Curve:
    """``lost``: share of the outputs' variance at ``densities``, both ascending, or not falling."""

    densities: Sequence[float]
    lost: Sequence[float]

    def loss(self, density: float) -> float:
        """-log(1 - rho)."""
        share = float(np.interp(density, self.densities, self.lost))
        return -math.log1p(-min(max(share, 0.0), _MOST_LOST))


def curves_of(task: Task, tell: Progress) -> dict[str, Curve]:
    """By layer, in the dense network; of some of its output channels. Layers that cannot be fitted
    have the mean curve of the others."""
    found: dict[str, Curve] = {}

    def look(
        layer: Layer, node: Node, inputs: list[torch.Tensor], outputs: list[torch.Tensor]
    ) -> None:
        blocks = Blocks.of(layer, task.options.group)
        centred = layer.module.bias is not None or is_absorbed(task.graph, task.norms, node)
        _, equations = equations_of(
            layer, node, inputs, outputs, task.options, blocks.group, centred
        )
        found[layer.name] = _curve(blocks, equations, task)

    survey(task, look, tell)
    others = [[curve.loss(density) for density in _GRID] for curve in found.values()]
    mean = np.mean(others, 0) if others else -np.log(_GRID)
    for layer in task.layers:
        if layer.prunable and layer.name not in found:
            found[layer.name] = Curve(_GRID.tolist(), (1 - np.exp(-mean)).tolist())
    return found


def _curve(blocks: Blocks, equations: list[Equations], task: Task) -> Curve:
    sampled = max(1, _OUTPUTS // len(equations))
    stride = -(-len(equations) // _OUTPUTS)
    rows_of_group = equations[0].crossed.shape[0]
    lost: list[np.ndarray] = []
    for group in range(0, len(equations), stride):
        rows = torch.linspace(0, rows_of_group - 1, min(sampled, rows_of_group)).long()
        own = equations[group].of_rows(rows.to(equations[group].energy.device))
        free = blocks.free[rows + group * rows_of_group].to(own.energy.device)
        scores = blocks.scores[rows + group * rows_of_group].to(own.energy.device)
        lost += list(_losses(own, free, scores, task))
    mean = np.mean(lost, 0) if lost else np.zeros(len(_GRID))
    return Curve(_GRID.tolist(), np.minimum.accumulate(mean).tolist())


def _losses(
    equations: Equations, free: torch.Tensor, scores: torch.Tensor, task: Task
) -> list[np.ndarray]:
    """Of each output channel that varies, at the densities of the grid."""
    rows, blocks = free.shape
    room, options = room_of(task.options), task.options
    available = free.sum(1)
    if options.method == "l1" or blocks == 1:
        order = scores.masked_fill(~free, -torch.inf).argsort(dim=1, descending=True, stable=True)
        shares, errors = [], []
        for density in _COARSE:
            count = max(1, round(density * blocks))
            first = torch.arange(blocks, device=free.device) < count
            kept = torch.zeros_like(free).scatter_(1, order, first.expand(rows, -1)) & free
            errors.append(equations.errors(refit(equations, kept, room)))
            shares.append(count / blocks)
        path = torch.stack(errors, 1)
    else:
        most = max(1, int(_HIGHEST * blocks))
        counts = available.clamp_max(most)
        _, _, explained = pursue(
            equations, counts, free, torch.full_like(counts, -1),
            steps=options.solver_steps, room=room,
        )  # fmt: skip
        start = equations.energy + equations.ridge * equations.weight.square().sum(1)
        path = (start[:, None] - explained).clamp_min(0)
        at_once = max(1, -(-int(counts.max()) // options.solver_steps))
        shares = [min((i + 1) * at_once, most) / blocks for i in range(path.shape[1])]
    everything = equations.errors(refit(equations, free, room))
    relative = torch.cat([path, everything[:, None]], 1) / equations.energy[:, None]
    varies = equations.energy > 1e-12 * equations.energy.max()
    xs, table = [0.0, *shares, 1.0], relative[varies].cpu().numpy()
    return [np.interp(_GRID, xs, [1.0, *row]) for row in table]


def allocate(
    curves: Mapping[str, Curve],
    cost: Callable[[str, float], float],
    fits: Callable[[Mapping[str, float]], bool],
) -> dict[str, float] | None:
    """The density of each layer. ``cost(layer, density)`` never falls with the density; ``fits``
    says whether the network may have these densities, and says so of lower ones when it does of
    higher ones. None when it may not even have the lowest."""
    lowest = {name: float(_GRID[0]) for name in curves}
    if not fits(lowest):
        return None
    steps = sorted(
        (step for name, curve in curves.items() for step in _steps(name, curve, cost)),
        key=lambda step: -step.gain,
    )

    def after(count: float) -> dict[str, float]:
        """The densities after so many steps, of the last one a part."""
        found = dict(lowest)
        whole = int(count)
        for step in steps[:whole]:
            found[step.layer] = step.end
        if whole < len(steps):
            step = steps[whole]
            found[step.layer] += (count - whole) * (step.end - step.begin)
        return found

    if fits(after(len(steps))):
        return after(len(steps))
    low, high = 0.0, float(len(steps))
    while high - low > 0.02:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(after(middle)) else (low, middle)
    return after(low)


@dataclass(frozen=True)
class _Step:
    layer: str
    begin: float
    end: float
    gain: float  # of the loss for a unit of cost


def _steps(name: str, curve: Curve, cost: Callable[[str, float], float]) -> list[_Step]:
    """From one corner of the lower convex hull of (cost, loss) to the next; their gains fall."""
    points = [(cost(name, float(d)), curve.loss(float(d)), float(d)) for d in _GRID]
    hull: list[tuple[float, float, float]] = []
    for point in points:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return [
        _Step(name, one[2], other[2], _slope(one, other))
        for one, other in zip(hull, hull[1:], strict=False)
    ]


def _slope(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """What is gained from one point to the other, for a unit of cost."""
    return (one[1] - other[1]) / max(other[0] - one[0], 1e-12)
