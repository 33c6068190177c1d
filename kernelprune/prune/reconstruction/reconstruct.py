"""kp.reconstruct: prunes a trained network without labels and without training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kernelprune.errors import Error
from kernelprune.frontends.torch.accepted import as_model_wants
from kernelprune.graph.footprint import Footprint
from kernelprune.prune.batches import Inputs
from kernelprune.prune.budget import connected
from kernelprune.prune.calibration import batches_of
from kernelprune.prune.checks import check_number
from kernelprune.prune.distributed import as_first_has
from kernelprune.prune.group_options import group_size
from kernelprune.prune.latency import (
    LayerTimes,
    Measure,
    engine_measure,
    hold_limit,
    layer_times,
)
from kernelprune.prune.layers import Layer, Selector, read_graph
from kernelprune.prune.masks import apply_masks, attach_masks
from kernelprune.prune.options import takes
from kernelprune.prune.plan import Plan, plan_of, warned
from kernelprune.prune.progress import Progress, told
from kernelprune.prune.reconstruction.allocation import Curve, allocate, curves_of
from kernelprune.prune.reconstruction.choice import Blocks, kernel_scores, present_connections
from kernelprune.prune.reconstruction.fitting import Wanted
from kernelprune.prune.reconstruction.options import ReconstructionOptions
from kernelprune.prune.reconstruction.rebuild import Rebuilt, Task, rebuild
from kernelprune.prune.strength import Strength
from kernelprune.prune.synaptic_options import LatencyOptions
from kernelprune.prune.weights import check_model, parametrisation

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kernelprune.keywords import ReconstructionKeywords

_ATTEMPTS = 3  # at a budget: omp and obs leave other channels dead than was foreseen
_USED = 0.98
_CLOSE = 0.92  # of a time limit: a faster network has connections to spare
_SLACK = 1.05  # of a time limit, for what was chosen in the end: measuring has noise

Masks = dict[str, torch.Tensor]


@takes(ReconstructionOptions)
def reconstruct(
    model: nn.Module,
    calibration: Any,
    *,
    density: float | None = None,
    macs: float | None = None,
    latency_ms: float | None = None,
    speed_up: float | None = None,
    batch: int = 1,
    threads: int = 1,
    ignore: Iterable[Selector] | Selector = (),
    include: Iterable[Selector] | Selector = (),
    hold: bool = False,
    progress: Progress | None = None,
    **options: Unpack[ReconstructionKeywords],
) -> Plan:
    """Prunes connections of a trained ``model`` in place, and fits what stays to the outputs of the
    network as it was: no labels, no training.

    Layer by layer, in order: with what the layer reads in the pruned network, x, and what it gave
    in the dense one, y, every output channel gets the weights w of its kept connections that
    minimise ``E[(y - w x)^2] + ridge |w - w_old|^2`` (about the means, which the bias or the batch
    norm makes good). Batch norms move with what they read. Layers that are kept whole are fitted
    too (``refit_whole``), but the ones that ``ignore`` selects and depthwise ones.

    ``calibration``: some hundred images as the network takes them: a tensor or array ``[N, ...]``,
    or batches of them (of tuples the first). ``options``: those of ``ReconstructionOptions``.
    ``ignore`` and ``include`` as for ``prune_connections``, which has the same layers.

    One limit of these: ``density``, kept share of the connections, in every layer; ``macs``, at
    most this share of the dense network's multiply-adds, both as exported; ``latency_ms``, at most
    so many milliseconds of the engine on this machine for ``batch`` images and ``threads`` threads;
    ``speed_up``, the time of the model as it is divided by so much. With the last three, each layer
    gets the density at which errors cost as much everywhere: the residuals of least squares in the
    dense network against multiply-adds, or against measured times.

    ``hold=True`` holds dropped connections at zero by masks until ``finalize_masks(model)``, for
    fine-tuning; connections that are zero already stay so. ``progress``: called with what is done
    and the share of it; without one, a terminal shows a bar after two seconds.

    The plan has for each layer the error that the dropped connections cause and what the fit left
    of it (``LayerPlan.residual``). The model may be on a GPU, which then computes everything.

    Raises Error for wrong options, for none or several limits, one that cannot be held, for images
    that are none, not finite or not what the model takes, and UnsupportedOperator for a model that
    ``kernelprune.check`` refuses; the model is then as it was.
    """
    chosen = ReconstructionOptions.from_dict(options)
    if group_size(chosen.group)[1] > 1:
        raise Error(
            f"group={chosen.group}: output channels choose by themselves here; say how many input "
            "channels go together, such as group=4"
        )
    _check_limits(density, macs, latency_ms, speed_up)
    LatencyOptions(latency_ms=latency_ms, latency_batch=batch, latency_threads=threads)
    check_model(model)
    batches = batches_of(calibration, model, chosen.samples)
    task, example = task_of(model, batches, chosen, ignore=ignore, include=include)
    with told(progress) as tell:
        work = Trials(task, tell)
        if density is not None:
            rebuilt, plan = work.with_density(density)
        elif macs is not None:
            rebuilt, plan = work.within_macs(macs)
        else:
            measure = engine_measure(
                model, example, task.layers, apply_masks, batch=batch, threads=threads
            )
            rebuilt, plan = work.within_time(measure, latency_ms, speed_up)
    (attach_masks if hold else apply_masks)(model, plan.masks)
    rebuilt.write(model)
    return warned(plan)


def task_of(
    model: nn.Module,
    batches: list[Inputs],
    options: ReconstructionOptions,
    *,
    ignore: Iterable[Selector] | Selector = (),
    include: Iterable[Selector] | Selector = (),
) -> tuple[Task, Inputs]:
    """What is to be done with a model, and one image as it takes them. Raises Error for layers that
    cannot be fitted, and UnsupportedOperator."""
    example = as_model_wants(model, tuple(x[:1] for x in batches[0]))
    graph, layers = read_graph(
        model, example, ignore=ignore, include=include, masked=True, computed=True
    )
    _check_layers(layers)
    return Task(model, graph, layers, batches, options), example


def _check_limits(
    density: float | None, macs: float | None, latency_ms: float | None, speed_up: float | None
) -> None:
    given = {"density": density, "macs": macs, "latency_ms": latency_ms, "speed_up": speed_up}
    said = [name for name, value in given.items() if value is not None]
    if len(said) != 1:
        raise Error(
            "say how much to keep by one of density=, macs=, latency_ms= and speed_up="
            + (f", not {' and '.join(said)}" if said else "")
        )
    for name in ("density", "macs"):
        if given[name] is not None:
            check_number(name, given[name], above=0, most=1)
    if speed_up is not None:
        check_number("speed_up", speed_up, above=1)


def _check_layers(layers: list[Layer]) -> None:
    for layer in layers:
        if layer.prunable and parametrisation(layer.module, Strength) is not None:
            raise Error(f"layer '{layer.name}' is under Synaptic Strength: finalize() it first")


@dataclass
class Trials:
    """Tries choices; the model stays as it is."""

    task: Task
    tell: Progress
    blocks: dict[str, Blocks] = field(init=False)
    footprint: Footprint = field(init=False)

    def __post_init__(self) -> None:
        group = self.task.options.group
        self.prunable = [layer for layer in self.task.layers if layer.prunable]
        self.blocks = {layer.name: Blocks.of(layer, group) for layer in self.prunable}
        self.present = {layer.name: present_connections(layer).cpu() for layer in self.prunable}
        self.footprint = Footprint(self.task.graph)

    # ------------------------------------------------------------ limits

    def with_density(self, density: float) -> tuple[Rebuilt, Plan]:
        return self.rebuilt({name: density for name in self.blocks}, "uniform")

    def within_macs(self, macs: float) -> tuple[Rebuilt, Plan]:
        curves = curves_of(self.task, self._part(0.0, 0.4))
        dense = self.footprint.dense.macs
        costs = {layer.name: (layer.cost or 0) * layer.shape[0] * layer.shape[1]
                 for layer in self.prunable}  # fmt: skip
        aim = budget = macs * dense
        best: tuple[Rebuilt, Plan] | None = None
        for _ in range(_ATTEMPTS):

            def fits(densities: Mapping[str, float], aim: float = aim) -> bool:
                return self.footprint.size(self.foreseen(densities)).macs <= aim

            densities = allocate(curves, lambda name, d: d * costs[name], fits)
            if densities is None:
                break
            found = self.rebuilt(densities, "macs", 0.4)
            took = found[1].macs_kept or 0
            if took <= budget and (best is None or took > (best[1].macs_kept or 0)):
                best = found
            if _USED * budget <= took <= budget or (took < budget and min(densities.values()) == 1):
                break
            aim *= 0.995 * budget / max(took, 1)
        if best is not None:
            used = (best[1].macs_kept or 0) / dense
            if used < _USED * macs:
                best[1].notes.append(
                    f"macs={macs}: the exported network has {used:.1%} of the multiply-adds"
                )
            return best
        least = self.footprint.size(self.foreseen({name: 0.01 for name in curves})).macs
        raise Error(
            f"macs={macs}: at least {least / dense:.1%} of the multiply-adds are left in the "
            "exported network, most of them perhaps in the layers that are kept whole; raise the "
            "budget or include= those"
        )

    def within_time(
        self, measure: Measure, latency_ms: float | None, speed_up: float | None
    ) -> tuple[Rebuilt, Plan]:
        curves = curves_of(self.task, self._part(0.0, 0.3))
        self.tell("measuring times", 0.3)
        times = layer_times(measure, lambda share: self.foreseen({n: share for n in self.blocks}))
        whole = times.total({name: 1.0 for name in self.blocks})
        limit = whole / speed_up if speed_up is not None else latency_ms
        assert limit is not None
        aim = limit
        tried: list[tuple[float, Rebuilt, Plan]] = []
        for _ in range(_ATTEMPTS):
            rebuilt, plan = self.rebuilt(
                self._within(curves, times, aim, measure), "milliseconds", 0.4
            )
            found, rest = measure(plan.masks)
            plan.milliseconds = took = rest + sum(found.values())
            for row in plan.rows:
                row.milliseconds = found.get(row.name)
            tried.append((took, rebuilt, plan))
            if _CLOSE * limit <= took <= _SLACK * limit or plan.prunable_density == 1:
                break
            aim = min(aim * limit / took, whole)
        held = [each for each in tried if each[0] <= _SLACK * limit]
        took, rebuilt, plan = max(held or tried, key=lambda each: each[0] if held else -each[0])
        if not held:
            plan.notes.append(f"the network takes {took:.3g} ms, {limit:.3g} ms were wanted")
        return rebuilt, plan

    def _within(
        self, curves: Mapping[str, Curve], times: LayerTimes, limit: float, measure: Measure
    ) -> dict[str, float]:
        """Densities that hold the limit, as measured with kernels chosen by norm."""

        def pick(wanted: float) -> Masks | None:
            densities = allocate(curves, times.of, lambda d: times.total(d) <= wanted)
            return None if densities is None else as_first_has(self.foreseen(densities))

        masks, _, _ = hold_limit(pick, times, limit, measure)
        return {name: float(mask.float().mean()) for name, mask in masks.items()}

    # ------------------------------------------------------------ choices

    def foreseen(self, densities: Mapping[str, float]) -> Masks:
        """About what will be kept: as many connections, chosen by norm."""
        masks = {}
        for name, blocks in self.blocks.items():
            number = blocks.number(densities[name])
            by_row = self.task.options.method != "l1"
            kept = blocks.evenly(number) if by_row else blocks.largest(number)
            masks[name] = blocks.connections(kept) & self.present[name]
        return masks

    def rebuilt(
        self, densities: Mapping[str, float], scope: str, begin: float = 0.0
    ) -> tuple[Rebuilt, Plan]:
        """The network with these densities, and no layer of it cut off if that can be."""
        results: list[Rebuilt] = []

        def pick(forced: Mapping[str, int] | None) -> Masks:
            wanted = {
                name: Wanted(
                    blocks.number(densities[name]),
                    blocks.place(forced[name]) if forced and name in forced else None,
                )
                for name, blocks in self.blocks.items()
            }
            results.append(rebuild(self.task, wanted, self._part(begin, 1.0)))
            return {name: results[-1].fits[name].mask.cpu() for name in wanted}

        scores = {layer.name: kernel_scores(layer) for layer in self.prunable}
        masks, notes = connected(pick, scores, "global-normalised", self.present, self.footprint)
        layers, options = self.task.layers, self.task.options
        method = f"reconstruction ({options.method})"
        plan = plan_of(layers, masks, method=method, scope=scope, footprint=self.footprint)
        plan.notes = notes
        fitted = {layer.name for layer in self.task.fitted.values()}
        for row in plan.rows:
            if row.name in results[-1].fits and row.name in fitted:
                row.residual = results[-1].fits[row.name].residual
            elif row.prunable:
                plan.notes.append(
                    f"layer '{row.name}' is called more than once, or not with its own weight: its "
                    "largest kernels stay as they are"
                )
        return results[-1], plan

    def _part(self, begin: float, end: float) -> Progress:
        return lambda doing, share: self.tell(doing, begin + (end - begin) * share)
