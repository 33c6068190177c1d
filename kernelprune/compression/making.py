"""Makes networks: allocation, reconstruction, quantisation, fine-tuning and the file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kernelprune.compression.distillation import distill
from kernelprune.compression.images import Images
from kernelprune.compression.networks import Networks
from kernelprune.compression.options import CompressOptions
from kernelprune.compression.timing import Timed, Timer
from kernelprune.errors import Error
from kernelprune.format import read, write
from kernelprune.frontends.torch.export import export
from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.graph.ir import Graph
from kernelprune.prune.latency import LayerTimes, hold_limit, layer_times
from kernelprune.prune.masks import attach_masks, finalize_masks
from kernelprune.prune.plan import Plan
from kernelprune.prune.progress import Progress
from kernelprune.prune.reconstruction.allocation import Curve, allocate, curves_of
from kernelprune.prune.reconstruction.options import ReconstructionOptions
from kernelprune.prune.reconstruction.rebuild import Rebuilt
from kernelprune.prune.reconstruction.reconstruct import Trials, task_of
from kernelprune.quantization.post_training import QuantizedModel, quantize
from kernelprune.quantization.training import QuantizationAware

_CLOSE = 0.94  # of a time limit: a faster network has connections to spare
_AIM = 0.98  # of a time limit: what is fitted is not quite what was foreseen
_ATTEMPTS = 3
_FEW = 8  # images to quantise a network by that is timed alone

Masks = Mapping[str, torch.Tensor]


@dataclass
class Made:
    """A network in a file. ``graph``: as it was written; ``rebuilt``: the weights before
    quantisation."""

    plan: Plan
    rebuilt: Rebuilt
    graph: Graph
    timed: Timed
    speed_up: float


class Maker:
    """Makes networks from one dense one, which stays as it is. ``dense``: its file."""

    def __init__(
        self,
        model: nn.Module,
        images: Images,
        options: CompressOptions,
        timer: Timer,
        dense: Path,
        source: str,
        tell: Progress,
        *,
        ignore: Any,
        include: Any,
    ):
        self.model, self.options, self.images = model, options, images
        self._timer, self._dense, self._source, self.tell = timer, dense, source, tell
        self._connections = max(read(dense)[0].all_connections(), 1)
        fitting = ReconstructionOptions(
            method=options.method, group=options.connections_together,
            samples=max(images.counts[0], 1),
        )  # fmt: skip
        task, self.example = task_of(model, images.fitted, fitting, ignore=ignore, include=include)
        self.trials = Trials(task, self._pass)
        self._networks = Networks(task, self.example)
        self.reference = 0.0  # of ``reference_time``
        self.curves: dict[str, Curve] = {}
        self.times = LayerTimes({}, {}, 0.0)

    def _pass(self, doing: str, share: float) -> None:
        self.tell(doing, share)

    # ------------------------------------------------------------ measuring

    def reference_time(self) -> dict[str, Any]:
        """Milliseconds of the dense network, by which all others are told (json)."""
        return {"dense": self._timer([self._dense])[0].milliseconds}

    def measured(self) -> dict[str, Any]:
        """Curves of errors and times of layers, for ``begin`` (json)."""
        curves = curves_of(self.trials.task, lambda doing, share: self.tell(doing, 0.5 * share))
        done = 0

        def at(share: float) -> Masks:
            nonlocal done
            done += 1
            self.tell("measuring layers", 0.5 + 0.06 * done)
            return self.trials.foreseen({name: share for name in self.trials.blocks})

        times = layer_times(self._measure, at)
        return {
            "curves": {name: [list(c.densities), list(c.lost)] for name, c in curves.items()},
            "densities": times.densities,
            "milliseconds": times.milliseconds,
            "rest": times.rest,
        }

    def begin(self, found: Mapping[str, Any]) -> None:
        """Takes what ``measured`` gave, in this run or in an earlier one."""
        self.curves = {name: Curve(*rows) for name, rows in found["curves"].items()}
        self.times = LayerTimes(found["densities"], found["milliseconds"], found["rest"])

    def beside_dense(self, path: Path) -> tuple[Timed, float]:
        """A file's time in parts of the dense network's first, and how much faster it is."""
        own, dense = self._timer([path, self._dense])
        factor = self.reference / dense.milliseconds
        nodes = {name: value * factor for name, value in own.nodes.items()}
        return Timed(own.milliseconds * factor, nodes), dense.milliseconds / own.milliseconds

    def _measure(self, masks: Masks) -> tuple[dict[str, float], float]:
        """As ``prune.latency.Measure``, of the precision that is asked for."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "candidate.safetensors"
            graph = self._networks.graph(masks)
            if self.options.precision == "int8":
                graph = self._quantised(graph, few=True).graph
            write(graph, path)
            timed = self.beside_dense(path)[0]
        found = self.by_layer(graph, timed)
        return found, timed.milliseconds - sum(found.values())

    def by_layer(self, graph: Graph, timed: Timed) -> dict[str, float]:
        """Milliseconds of the prunable layers."""
        found = {layer.name: 0.0 for layer in self.trials.prunable}
        for node in graph.nodes:
            if node.has_weight() and node.module in found:
                found[node.module] += timed.nodes.get(node.name, 0.0)
        return found

    # ------------------------------------------------------------ making

    def dense_int8(self, path: Path) -> None:
        """Writes the dense network in bytes. Raises Error where no layer can be."""
        self._export(self._quantised(self._networks.graph({})), path)

    def within_time(self, limit: float, path: Path) -> Made | None:
        """The network that takes at most ``limit`` milliseconds, or the nearest to it that was
        made; in a file. None when none is so fast."""
        tried: list[Made] = []
        aim = _AIM * limit
        for _ in range(_ATTEMPTS):
            densities = self._densities(aim)
            if densities is None:
                break
            tried.append(self.with_densities(densities, path, "milliseconds"))
            took = tried[-1].timed.milliseconds
            if _CLOSE * limit <= took <= limit or (took <= limit and min(densities.values()) == 1):
                break
            aim *= _AIM * limit / took
        if not tried:
            return None
        held = [each for each in tried if each.timed.milliseconds <= limit]
        best = max(
            held or tried,
            key=lambda each: each.timed.milliseconds if held else -each.timed.milliseconds,
        )
        if best is not tried[-1]:
            self._write(best.graph, path)
        return best

    def _densities(self, limit: float) -> dict[str, float] | None:
        """Of each layer, so that the measured time holds; the network is not fitted yet."""

        def pick(wanted: float) -> Masks | None:
            found = allocate(self.curves, self.times.of, lambda d: self.times.total(d) <= wanted)
            return None if found is None else self.trials.foreseen(found)

        whole = {name: 1.0 for name in self.trials.blocks}
        if self.times.total(whole) <= limit:
            return whole
        try:
            masks = hold_limit(pick, self.times, limit, self._measure)[0]
        except Error:  # it says latency_ms, which may not be what was asked for
            return None
        return {name: float(mask.float().mean()) for name, mask in masks.items()}

    def with_densities(self, densities: Mapping[str, float], path: Path, scope: str) -> Made:
        """Fits the network, writes and times it."""
        rebuilt, plan = self.trials.rebuilt(densities, scope)
        graph = self._networks.graph(plan.masks, rebuilt)
        if self.options.precision == "int8":
            graph = self._quantised(graph).graph
        self._write(graph, path)
        timed, speed_up = self.beside_dense(path)
        return Made(plan, rebuilt, graph, timed, speed_up)

    def fine_tuned(self, made: Made, loader: Iterable[Any], path: Path) -> None:
        """Writes the network after training it to be as the dense one."""
        student = self._networks.module(made.plan.masks, made.rebuilt).requires_grad_(True)
        attach_masks(student, made.plan.masks)

        def train(parameters: Iterable[Any]) -> None:
            distill(
                student, self.model, loader, parameters, epochs=self.options.epochs,
                learning_rate=self.options.learning_rate, tell=self.tell,
            )  # fmt: skip

        if self.options.precision == "float32":
            train(student.parameters())
            self._export(finalize_masks(student), path)
            return
        aware = QuantizationAware(student, self.images.calibration(), progress=self.tell)
        train(aware.parameter_groups())
        self._export(aware.quantize(progress=self.tell), path)

    def _quantised(self, graph: Graph, few: bool = False) -> QuantizedModel:
        """``few``: for its time alone, which does not depend on the ranges."""
        if few:
            return quantize(
                graph, self.images.calibration(), samples=_FEW, bias_correction=False,
                method="minmax", progress=_silent,
            )  # fmt: skip
        return quantize(
            graph, self.images.calibration(), rounding=self.options.rounding, progress=self.tell
        )

    def _write(self, graph: Graph, path: Path) -> None:
        """After the engine has been compared with the graph's own rules."""
        self._export(GraphModel(graph), path)

    def _export(self, module: nn.Module, path: Path) -> None:
        """On two images rather than one, so that what differs between images is compared."""
        example = tuple(x[:2] for x in self.images.fitted[0])
        export(
            module, example, path, method="compress", source=self._source, **self._counts(module)
        )

    def _counts(self, module: nn.Module) -> dict[str, str]:
        """What the file says of its connections: of those that the dense network has."""
        if not isinstance(module, GraphModel):
            return {}
        kept, total = module.graph.kept_connections(), self._connections
        return {"connections": f"{kept}/{total}", "density": f"{kept / total:.6g}"}


def _silent(doing: str, share: float) -> None:
    """For what is done many times."""
