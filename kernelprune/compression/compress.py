"""kp.compress: a trained network, images and a target; a fast file and what it costs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from kernelprune.benchmarking.machine import package_version
from kernelprune.compression.images import images_of
from kernelprune.compression.options import CompressOptions
from kernelprune.compression.points import Point
from kernelprune.compression.result import Compressed
from kernelprune.compression.run import Asked, Run
from kernelprune.compression.scoring import Evaluate, OutputForm
from kernelprune.compression.timing import Timer, engine_timer
from kernelprune.compression.work import WorkFolder, digest_of
from kernelprune.errors import Error
from kernelprune.files import name_of
from kernelprune.frontends.onnx.load import load_onnx
from kernelprune.frontends.torch.accepted import check_inputs, unwrapped
from kernelprune.frontends.torch.export import export
from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.prune.batches import Inputs
from kernelprune.prune.checks import check_number
from kernelprune.prune.layers import Selector
from kernelprune.prune.options import takes
from kernelprune.prune.progress import Progress, told
from kernelprune.prune.weights import check_model
from kernelprune.runtime.plan import processor

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kernelprune.keywords import CompressKeywords


@takes(CompressOptions)
def compress(
    model: nn.Module | str | os.PathLike[str],
    x: Any = None,
    *,
    calibration: Any,
    speed_up: float | None = None,
    latency_ms: float | None = None,
    density: float | None = None,
    evaluate: Evaluate | None = None,
    max_drop: float | None = None,
    confirm: Evaluate | None = None,
    fine_tune: Iterable[Any] | bool | None = None,
    curve: Iterable[float] = (),
    ignore: Iterable[Selector] | Selector = (),
    include: Iterable[Selector] | Selector = (),
    work: str | os.PathLike[str] | None = None,
    timer: Timer | None = None,
    on_step: Callable[[Point], None] | None = None,
    progress: Progress | None = None,
    **options: Unpack[CompressKeywords],
) -> Compressed:
    """Prunes a trained network, fits what stays, turns it into bytes if asked for, and measures
    what all that gains and costs; ``model`` stays as it is. Needs images, no labels.

    ``model``: a torch module or an ONNX file. ``x``: an example input; without it the first image
    of ``calibration``, which is some hundred images as the network takes them: a tensor or array
    ``[N, ...]``, a tuple of them for several inputs, or batches (of tuples the first).

    At most one of ``speed_up``, times as fast as the dense float32 network on this machine's
    engine; ``latency_ms``, milliseconds of a run of ``batch`` images; ``density``, kept share of
    the connections in every layer. ``evaluate``: called with a module that the engine computes,
    gives a number of which more is better. ``max_drop``: the network loses at most so much (of
    ``evaluate``, else of the agreement of the top class or the cosine of the outputs, see
    ``judge``): where what was asked for costs more, or nothing was asked for, the fastest network
    that holds is searched for. It is never exceeded on the data that judges; the drop on held-out
    images is told beside it, and ``confirm``, a function as ``evaluate`` on other data, is called
    for the dense network and the result alone.

    ``fine_tune``: batches of images, or of images and labels, to train each network with, the dense
    one being its teacher; True takes the images that the network is fitted to. What comes out worse
    is not taken. ``curve``: more speed-ups (with
    ``density``: reciprocal densities) to make networks for, as points of the report. ``ignore`` and
    ``include``: layers, as for ``reconstruct``. ``work``: a folder in which each finished step
    stays; a run that was killed goes on there. ``timer``: in place of this machine's engine, such
    as on another machine: a list of files -> what each takes. ``on_step``: called with each
    network's ``Point``. ``progress``: called with what is done and the share of it; without one, a
    terminal shows a bar after two seconds. ``options``: those of ``CompressOptions``.

    Raises Error for wrong options or images, for no or several targets, for one that cannot be
    reached, for a work folder that was begun with something else, and what ``reconstruct``,
    ``quantize`` and ``export`` raise.
    """
    chosen = CompressOptions.from_dict(options)
    asked = _asked(chosen, speed_up, latency_ms, density, max_drop, curve)
    network, source = _network(model)
    images = images_of(calibration, network, chosen.samples, chosen.held_out)
    example = _example(x, images.fitted[0])
    loader: Any = images.calibration() if fine_tune is True else fine_tune or None
    timing = timer or engine_timer(chosen.batch, chosen.threads)
    with told(progress) as tell, ExitStack() as stack:
        tell("exporting the dense network", 0.0)
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        dense = place / "dense.safetensors"
        export(network, example, dense, source=source)
        form = OutputForm.of(network, example)
        settings = {
            "model": digest_of(dense),
            "images": images.digest,
            **asked.settings(),
            **chosen.to_dict(),
            "evaluate": _called(evaluate),
            "fine-tuning": fine_tune if isinstance(fine_tune, bool) else fine_tune is not None,
            "ignore": _shown(ignore, network),
            "include": _shown(include, network),
            "machine": processor() if timer is None else "another timer",
            "versions": {name: package_version(name) for name in ("kernelprune", "torch")},
        }
        folder = WorkFolder(place / "work" if work is None else work, settings)
        run = Run(
            network, images, chosen, asked, timing, dense, source, folder, form, tell,
            evaluate=evaluate, confirm=confirm, loader=loader, on_step=on_step,
            ignore=ignore, include=include,
        )  # fmt: skip
        return run.result()


def _asked(
    options: CompressOptions,
    speed_up: float | None,
    latency_ms: float | None,
    density: float | None,
    max_drop: float | None,
    curve: Iterable[float],
) -> Asked:
    """Raises Error for what cannot be asked for."""
    given = {"speed_up": speed_up, "latency_ms": latency_ms, "density": density}
    said = {name: value for name, value in given.items() if value is not None}
    if len(said) > 1 or (not said and max_drop is None):
        wrong = f", not {' and '.join(said)}" if said else ""
        raise Error(
            "say what is wanted by one of speed_up=, latency_ms= and density=, or by max_drop= "
            f"alone for the fastest network{wrong}"
        )
    if speed_up is not None:
        check_number("speed_up", speed_up, above=1)
    if latency_ms is not None:
        check_number("latency_ms", latency_ms, above=0)
    if density is not None:
        check_number("density", density, above=0, most=1)
    if max_drop is not None:
        check_number("max_drop", max_drop, least=0)
    points = tuple(curve)
    for factor in points:
        check_number("curve", factor, above=1)
    kind, value = next(iter(said.items()), ("speed_up", None))
    return Asked(kind, value, max_drop, tuple(sorted(map(float, points))))


def _network(model: Any) -> tuple[nn.Module, str]:
    """The module, in eval mode as it is computed, and what it was made of."""
    if isinstance(model, (str, os.PathLike)):
        name = name_of(model)
        found: Any = load_onnx(name)
        source = os.path.basename(name)
    else:
        found, source = unwrapped(model), type(unwrapped(model)).__name__
    if isinstance(found, GraphModel):
        raise Error(f"{source}: is quantised, or is no torch module that trains; give its original")
    check_model(found)
    return found, source


def _example(x: Any, batch: Inputs) -> Inputs:
    """Some images of the calibration, after a check that ``x`` is like them."""
    if x is not None:
        shapes = [tuple(tensor.shape[1:]) for tensor in check_inputs(x)]
        if shapes != [tuple(tensor.shape[1:]) for tensor in batch]:
            raise Error(
                f"calibration: its images are {[list(tensor.shape[1:]) for tensor in batch]}, the "
                f"example {[list(shape) for shape in shapes]}"
            )
    return tuple(tensor[:2] for tensor in batch)


def _called(function: Any) -> str | None:
    """A name by which a changed function is seen; what it computes is checked by its value."""
    if function is None:
        return None
    return str(getattr(function, "__qualname__", type(function).__name__))


def _shown(selectors: Any, model: nn.Module) -> list[str]:
    """Selectors as words that are the same in every process."""
    items = selectors if isinstance(selectors, (list, tuple, set)) else [selectors]
    names = {module: name for name, module in model.named_modules()}
    return [
        item if isinstance(item, str)
        else item.__qualname__ if isinstance(item, type)
        else names.get(item, type(item).__name__)
        for item in items
    ]  # fmt: skip
