"""Measures every way of computing every layer, each between its neighbours in the network.

One engine per candidate rank: in the n-th of them every layer takes its n-th candidate, and all
layers are timed in one run. So each kernel finds the caches as its neighbours leave them, and a
network takes as many engines as its richest layer has candidates, not one per candidate. Rounds
take turns over the candidates, so that the machine's drift meets all of them, and drop those that
are clearly slower, so that more runs are left for close decisions.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from kernelprune import _core
from kernelprune.files import name_of
from kernelprune.model_files import read_model
from kernelprune.runtime.engine import load_core
from kernelprune.runtime.options import Options, checked_options, duration
from kernelprune.runtime.plan import Plan, processor, version

# A candidate goes on to the next round if it takes no more than this times the fastest one's time.
_KEPT = (1.3, 1.1, 1.05)
# Noise must not change a plan: the default stays unless another candidate is faster by so much.
_GAIN = 1.02

Choices = dict[tuple[int, str], str]
Times = dict[str, dict[str, float]]


@dataclass(frozen=True)
class TunedLayer:
    """One layer with ``lanes`` images side by side; milliseconds for all of them."""

    lanes: int
    layer: str
    default: str
    chosen: str
    default_milliseconds: float
    milliseconds: float


@dataclass(frozen=True)
class Tuning:
    """What tuning found.

    Attributes:
        plan: For ``Engine(path, plan=...)`` or :meth:`Plan.save`.
        layers: Those that can be computed in several ways.
        milliseconds: ``{lanes: (default, tuned)}`` of the whole network, for ``lanes`` images.
    """

    plan: Plan
    layers: list[TunedLayer]
    milliseconds: dict[int, tuple[float, float]]


def tune(
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    isa: str | None = None,
    lanes: int | None = None,
    precision: str = "fast",
    seconds: float = 0.15,
    progress: Callable[[str, float], None] | None = None,
) -> Tuning:
    """Measures the candidates of every layer on random images.

    Args:
        path: The model file.
        threads, isa, lanes, precision: As for :class:`kernelprune.Engine`; ``lanes`` tunes one
            mode only.
        seconds: Time for each candidate of a network in each round; at least two runs are timed.
            Must be finite and above 0.
        progress: Called with what is being measured and the share that is done, 0..1.

    Raises:
        Error, FormatError, DeviceError: As for :class:`kernelprune.Engine`.
    """
    options = checked_options("cpu", threads, isa, lanes, precision)
    return tune_model(read_model(path), name_of(path), options, seconds, progress)


def tune_model(
    content: bytes,
    name: str,
    options: Options,
    seconds: float = 0.15,
    progress: Callable[[str, float], None] | None = None,
) -> Tuning:
    """The same for the bytes of a model file; ``name`` stands for it in messages."""
    tuner = _Tuner(content, name, options, duration(seconds, "seconds"))
    lanes = options.lanes
    modes = tuner.modes(lanes or 0)
    choices: Choices = {}
    layers: dict[int, list[TunedLayer]] = {}
    node_seconds: dict[int, dict[str, float]] = {}
    for position, mode in enumerate(modes):

        def report(share: float, position: int = position, mode: int = mode) -> None:
            if progress is not None:
                images = "1 image" if mode == 1 else f"{mode} images side by side"
                progress(f"measuring {images}", (position + share) / len(modes))

        found, layers[mode], node_seconds[mode] = tuner.tune_mode(mode, report)
        choices.update(found)
        report(1.0)
    cuts = tuner.best_cuts(node_seconds) if lanes is None else dict(tuner.default_cuts)
    milliseconds: dict[int, tuple[float, float]] = {}
    for mode in reversed(modes):  # planar first: its layers stand in front of the others
        before, after = tuner.compare(mode, choices, cuts)
        if after > before:
            # The sum of the best layers is not always the best network; then nothing is changed.
            choices.update(tuner.defaults[mode])
            cuts.update({mode: tuner.default_cuts[mode]} if mode > 1 else {})
            layers[mode] = [_undone(layer) for layer in layers[mode]]
            after = before
        milliseconds[mode] = before, after
    plan = Plan(
        model=hashlib.sha256(content).hexdigest(),
        isa=options.isa,
        precision=options.precision,
        choices=choices,
        planar_nodes=cuts,
        seconds={mode: milliseconds[mode][1] / 1e3 for mode in modes},
        threads=options.threads,
        kernelprune=version(),
        processor=processor(),
    )
    return Tuning(plan, [layer for mode in modes for layer in layers[mode]], milliseconds)


def _undone(layer: TunedLayer) -> TunedLayer:
    default, before = layer.default, layer.default_milliseconds
    return TunedLayer(layer.lanes, layer.layer, default, default, before, before)


class _Tuner:
    """Measures one file, mode by mode."""

    def __init__(self, content: bytes, name: str, options: Options, seconds: float) -> None:
        self.content, self.name, self.options = content, name, options
        self.seconds = seconds
        self.run_seconds = 1.0  # of the engine measured last
        self.defaults: dict[int, Choices] = {}
        self.default_cuts: dict[int, int] = {}

    def load(
        self, lanes: int, choices: Choices | None = None, cuts: dict[int, int] | None = None
    ) -> _core.Engine:
        return load_core(
            self.content,
            self.name,
            self.options.threads,
            self.options.isa,
            lanes,
            self.options.precision,
            choices=choices or {},
            cuts=cuts or {},
        )

    def modes(self, lanes: int) -> list[int]:
        """Images side by side, widest first."""
        engine = self.load(lanes)
        found = sorted({layer.lanes for layer in engine.candidates}, reverse=True)
        self.cuts = engine.planar_cuts
        self.default_cuts = {mode: engine.planar_nodes(mode) for mode in found if mode > 1}
        return found

    def images(self, engine: _core.Engine, lanes: int) -> list[np.ndarray]:
        random = np.random.default_rng(0)
        return [
            random.standard_normal((lanes, *info.shape), dtype=np.float32) for info in engine.inputs
        ]

    def tune_mode(
        self, lanes: int, report: Callable[[float], None]
    ) -> tuple[Choices, list[TunedLayer], dict[str, float]]:
        """The fastest candidates, the layers' times, and the seconds of every node."""
        planned = self.load(lanes)
        default = {layer.node: layer.chosen for layer in planned.candidates}
        self.defaults[lanes] = {(lanes, node): name for node, name in default.items()}
        left = {layer.node: list(layer.names) for layer in planned.candidates}
        inputs = self.images(planned, lanes)
        started = time.perf_counter()
        planned.run(inputs)
        self.run_seconds = max(time.perf_counter() - started, 1e-6)
        del planned  # with its copies of the weights
        times: Times = {}  # a node without candidates has one, without a name
        for number, kept in enumerate(_KEPT):
            count = max((len(names) for names in left.values()), default=0)
            if number > 0 and count == 1:
                break
            for rank in range(count):
                report((number + rank / count) / len(_KEPT))
                choice = {node: names[rank % len(names)] for node, names in left.items()}
                for node, elapsed in self.profile(lanes, choice, inputs):
                    name = choice.get(node, "")
                    found = times.setdefault(node, {})
                    # Whatever disturbs a measurement only makes it longer.
                    found[name] = min(found.get(name, elapsed), elapsed)
            for node, names in left.items():
                limit = kept * min(times[node][name] for name in names)
                left[node] = [
                    name for name in names if times[node][name] <= limit or name == default[node]
                ]
        choices: Choices = {}
        layers = []
        seconds = {node: min(found.values()) for node, found in times.items()}
        for node, names in left.items():
            found, before = times[node], default[node]
            best = min(names, key=found.__getitem__)
            chosen = best if found[best] * _GAIN < found[before] else before
            choices[lanes, node], seconds[node] = chosen, found[chosen]
            if len(found) > 1:
                milliseconds = found[before] * 1e3, found[chosen] * 1e3
                layers.append(TunedLayer(lanes, node, before, chosen, *milliseconds))
        return choices, layers, seconds

    def best_cuts(self, seconds: dict[int, dict[str, float]]) -> dict[int, int]:
        """For each mode how many nodes at the beginning should run one image at a time."""
        best = {}
        for lanes in self.default_cuts:
            more = [0.0]  # what the first nodes take more one image at a time, by their number
            for node, planar in seconds[1].items():
                more.append(more[-1] + lanes * planar - seconds[lanes][node])
            best[lanes] = min(self.cuts, key=more.__getitem__)
        return best

    def profile(
        self, lanes: int, choice: dict[str, str], inputs: list[np.ndarray]
    ) -> Iterable[tuple[str, float]]:
        """Layer and median seconds."""
        engine = self.load(lanes, {(lanes, node): name for node, name in choice.items()})
        repeats = int(min(max(self.seconds / self.run_seconds, 2), 50))
        layers = engine.profile(inputs, repeats)
        self.run_seconds = max(sum(layer.seconds for layer in layers), 1e-6)
        return [(layer.name, layer.seconds) for layer in layers]

    def compare(self, lanes: int, choices: Choices, cuts: dict[int, int]) -> tuple[float, float]:
        """Milliseconds of one run by default and with ``choices``, taking turns."""
        engines = [self.load(lanes, {}, self.default_cuts), self.load(lanes, choices, cuts)]
        inputs = self.images(engines[0], lanes)
        taken: tuple[list[float], list[float]] = ([], [])
        spent = 0.0
        while spent < 4 * self.seconds or len(taken[0]) < 3:
            for engine, times in zip(engines, taken, strict=True):
                engine.run(inputs)  # finds the caches full of the other's weights
                started = time.perf_counter()
                engine.run(inputs)
                times.append(time.perf_counter() - started)
                spent += times[-1]
        return float(np.median(taken[0])) * 1e3, float(np.median(taken[1])) * 1e3
