"""kp.quantize: a trained network in bytes, from unlabelled images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from kernelprune.errors import Error
from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.graph.ir import Graph
from kernelprune.graph.quantization import Quantization
from kernelprune.prune.checks import check_number
from kernelprune.prune.options import takes
from kernelprune.prune.progress import Progress, told
from kernelprune.quantization.comparison import report_of
from kernelprune.quantization.equalization import equalized
from kernelprune.quantization.integers import choose_scales, observe, with_integers
from kernelprune.quantization.layerwise import adjusted, correct_bias
from kernelprune.quantization.observers import Observation
from kernelprune.quantization.options import QuantizeOptions
from kernelprune.quantization.placement import place
from kernelprune.quantization.prepare import Model, Prepared, Selector, prepare
from kernelprune.quantization.report import QuantizationReport
from kernelprune.quantization.rounding import round_to_outputs
from kernelprune.quantization.sensitivity import QuantizationSensitivity, sensitivity_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kernelprune.keywords import QuantizeKeywords

# Of a model, larger is better.
Evaluate = Callable[[nn.Module], float]


class QuantizedModel(GraphModel):
    """A quantised network as a torch module: in eval mode and in train mode its forward computes
    the integers that the engine computes from ``kernelprune.export(model, x, path)``.

    ``graph``: what is written. ``report``: what quantisation did to each layer; ``print`` it.
    ``source``: the class, or the file, that it was made of.
    """

    def __init__(self, graph: Graph, report: QuantizationReport, source: str):
        super().__init__(graph, source)
        self.report = report

    def _arguments(self) -> tuple[Any, ...]:
        return self.graph, self.report, self.source


@takes(QuantizeOptions)
def quantize(
    model: Model,
    calibration: Any,
    *,
    ignore: Iterable[Selector] | Selector = (),
    evaluate: Evaluate | None = None,
    max_drop: float | None = None,
    progress: Progress | None = None,
    **options: Unpack[QuantizeKeywords],
) -> QuantizedModel:
    """Turns a trained network's weights and activations into bytes; ``model`` stays as it is.

    ``model``: a torch module, pruned or not, a captured graph or a model file. ``calibration``: a
    few hundred images as the network takes them, unlabelled: a tensor or array ``[N, ...]``, or
    batches of them (of tuples the first). ``ignore``: layers that stay float32, by name, pattern,
    type or module. ``progress``: called with what is done and the share of it; without one, a
    terminal shows a bar after two seconds. ``options``: those of ``QuantizeOptions``, by name.

    ``evaluate``: called with a model, gives a number of which more is better, such as the accuracy
    on validation images. With ``max_drop`` the most sensitive layers stay float32, as few as keep
    that number within ``max_drop`` of the float32 network's.

    Weights get one symmetric scale for each output channel, activations one scale and zero point
    each. First and last layer included; outputs of the network, and values that only ops read which
    compute with float32 numbers, stay float32.

    Raises Error for wrong options, images that are none or not finite, a model that cannot be
    captured, a selector that selects nothing, when there is no layer to quantise, and when no
    choice of layers keeps within ``max_drop``.
    """
    chosen = QuantizeOptions.from_dict(options)
    if max_drop is not None:
        check_number("max_drop", max_drop, least=0)
        if evaluate is None:
            raise Error("max_drop= needs evaluate=, a function that gives a model's accuracy")
    start = prepare(model, calibration, ignore, chosen.samples)
    with told(progress) as tell:
        work = _Work(start, chosen, tell)
        if evaluate is None:
            return work.quantised(frozenset())
        exact = float(evaluate(GraphModel(start.graph, start.source)))
        if max_drop is None:
            found = work.quantised(frozenset())
            return _evaluated(found, exact, float(evaluate(found)))
        return _within(work, evaluate, exact, max_drop)


def quantize_prepared(
    start: Prepared,
    options: QuantizeOptions,
    tell: Progress,
    known: Mapping[str, Quantization],
) -> QuantizedModel:
    """``known``: what the bytes of a layer's input stand for, by the layer's module."""
    return _Work(start, options, tell, known).quantised(frozenset())


class _Work:
    """Measures once, quantises as often as asked."""

    def __init__(
        self,
        start: Prepared,
        options: QuantizeOptions,
        tell: Progress,
        known: Mapping[str, Quantization] | None = None,
    ):
        self._start, self._options, self._tell, self._known = start, options, tell, known
        self.layers = place(start.graph, start.ignored).layers
        if not self.layers:
            raise Error("there is no layer to quantise: the model has none, or ignore= names all")
        if options.equalize:
            start.graph = equalized(start.graph, start.batches, tell)
        self._seen: dict[str, Observation] = {}

    def quantised(self, more_ignored: frozenset[str]) -> QuantizedModel:
        start, options, tell = self._start, self._options, self._tell
        placement = place(start.graph, start.ignored | more_ignored)
        # Fewer layers never make other values bytes.
        self._seen = self._seen or observe(start.graph, placement, start.batches, tell)
        scales = choose_scales(start.graph, placement, self._seen, options, self._known)
        graph = with_integers(start.graph, placement, scales, options)
        if options.rounding == "learned":
            graph = adjusted(start.graph, graph, start.batches, round_to_outputs, tell)
        elif options.bias_correction:
            graph = adjusted(start.graph, graph, start.batches, correct_bias, tell)
        report = report_of(start.graph, graph, self._seen, start.images, options, tell)
        return QuantizedModel(graph, report, start.source)

    def by_sensitivity(self) -> list[str]:
        """The layers, the most sensitive first."""
        found = sensitivity_of(self._start, self._options, self._seen, None, self._tell)
        return list(found.values)


def _within(work: _Work, evaluate: Evaluate, exact: float, max_drop: float) -> QuantizedModel:
    """With as few layers in float32 as a search by halves finds."""
    tried: dict[int, QuantizedModel] = {}
    order: list[str] = []

    def fits(count: int) -> bool:
        found = work.quantised(frozenset(order[:count]))
        value = float(evaluate(found))
        tried[count] = _evaluated(found, exact, value)
        return value >= exact - max_drop

    if fits(0):
        return tried[0]
    order = work.by_sensitivity()
    most = len(order) - 1
    low, high = 0, min(1, most)
    while not fits(high):
        if high >= most:
            raise Error(
                f"max_drop={max_drop:g}: with all layers but {order[-1]!r} in float32 evaluate "
                f"gives {tried[high].report.evaluated[1]:g}, without quantisation {exact:g}"  # type: ignore[index]
            )
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return tried[high]


def _evaluated(model: QuantizedModel, exact: float, value: float) -> QuantizedModel:
    model.report = dataclasses.replace(model.report, evaluated=(exact, value))
    return model


@takes(QuantizeOptions)
def quantize_sensitivity(
    model: Model,
    calibration: Any,
    evaluate: Evaluate | None = None,
    *,
    ignore: Iterable[Selector] | Selector = (),
    progress: Progress | None = None,
    **options: Unpack[QuantizeKeywords],
) -> QuantizationSensitivity:
    """Which layers suffer: quantises each alone, all others in float32, and calls
    ``evaluate(model)``; without it, measures the signal-to-noise ratio of the network's outputs on
    32 images of the calibration. The other arguments are those of ``quantize``."""
    chosen = QuantizeOptions.from_dict(options)
    start = prepare(model, calibration, ignore, chosen.samples)
    with told(progress) as tell:
        placement = place(start.graph, start.ignored)
        seen = observe(start.graph, placement, start.batches, tell)
        return sensitivity_of(start, chosen, seen, evaluate, tell)
