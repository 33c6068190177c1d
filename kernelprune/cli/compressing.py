"""``kernelprune compress``. No torch before the command runs."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kernelprune.cli.app import app
from kernelprune.cli.console import make_console
from kernelprune.cli.parse import parse_batches
from kernelprune.cli.pruning import command_line_of
from kernelprune.cli.running import read_array
from kernelprune.compression.options import CompressOptions, ImageOptions
from kernelprune.errors import Error
from kernelprune.files import is_unused
from kernelprune.runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch
    from torch import nn

    from kernelprune.compression.points import Point
    from kernelprune.graph.ir import Value

console = make_console()


@dataclass(frozen=True, kw_only=True)
class CommandOptions(ImageOptions, CompressOptions):
    """What the command takes of both."""


@app.command()
@command_line_of(CommandOptions)
def compress(
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(help="An ONNX file, or a checkpoint's folder.", metavar="MODEL")
    ],
    images: Annotated[
        str | None,
        typer.Option(
            help="Unlabelled images, some hundred: a folder of files, an array .npy, or a data set "
            "of whose training images some are taken; default: the checkpoint's data set.",
            metavar="FOLDER|FILE|DATA SET",
        ),
    ] = None,
    data_path: Annotated[str | None, typer.Option(help="Folder with the data set's files.")] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Per image, such as 3,224,224, where the ONNX file leaves it free."),
    ] = None,
    speed_up: Annotated[
        float | None, typer.Option(help="Times as fast as the dense float32 network.")
    ] = None,
    latency_ms: Annotated[float | None, typer.Option(help="Milliseconds of a run.")] = None,
    density: Annotated[
        float | None, typer.Option(help="Kept share of the connections of every layer.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Compute with bytes.")] = False,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Lose at most so much, such as 0.01, of the accuracy if there are labels, else of "
            "the agreement with the dense network; alone: the fastest such network."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Table with lines file,label of images in the folder.", metavar="CSV"),
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(
            help="Function of a module that gives a number of which more is better.",
            metavar="MODULE:FUNCTION",
        ),
    ] = None,
    fine_tune: Annotated[
        bool,
        typer.Option(
            "--fine-tune", help="Train each network on the images to be as the dense one."
        ),
    ] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="Leave this layer whole: a name, or a pattern with *; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The model file to write.")] = Path("fast.safetensors"),
    report: Annotated[
        Path | None, typer.Option(help="Page to write, with the curve and all steps (HTML).")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder for finished steps; default: beside the file, until it is there."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what lies in the folder for steps.")
    ] = False,
) -> None:
    """Make a trained network fast: prune it, fit what stays, and measure what that costs.

    Needs images, no labels and no training. Which layers lose how much goes by their error per
    millisecond on this machine. The file is compared with the dense network on images that nothing
    was fitted to.

    [bold]Examples[/bold]

      kernelprune compress net.onnx --images photos/ --speed-up 4 --out fast.safetensors

      kernelprune compress net.onnx --images photos/ --int8 --max-drop 0.01 --report net.html

      kernelprune compress net.onnx --images photos/ --labels f.csv --speed-up 4 --max-drop 0.01

      kernelprune compress runs/vgg --speed-up 3
    """
    from kernelprune.cli.progress import show_progress
    from kernelprune.compression.compress import compress as compressed

    names = CompressOptions.names()
    own = {name: value for name, value in context.params.items() if name in names}
    own |= {"precision": "int8"} if int8 else {}
    chosen = CompressOptions(**own)
    picture = ImageOptions(**{name: context.params[name] for name in ImageOptions.names()})
    if labels is not None and evaluate is not None:
        raise Error("give --labels or --evaluate, not both")
    folder = out.with_name(f"{out.name}.work") if work is None else work
    if not resume and not is_unused(folder):
        raise Error(f"{folder}: holds a run that was begun; go on with --resume, or remove it")
    network, data_set, inputs = _network(model, size)
    given = _given(inputs, images or data_set, data_path, labels, picture, chosen.samples)
    with show_progress() as progress:
        found = compressed(
            network,
            calibration=given.calibration,
            speed_up=speed_up,
            latency_ms=latency_ms,
            density=density,
            evaluate=_function(evaluate) if evaluate is not None else given.evaluate,
            confirm=given.confirm,
            max_drop=max_drop,
            fine_tune=fine_tune or None,
            ignore=tuple(ignore or ()),
            work=folder,
            on_step=_tell_step,
            progress=progress,
            **own,
        )
    found.save(out, given.preparation)
    if report is not None:
        found.report(report)
    if work is None:
        from kernelprune.compression.work import clear

        clear(folder)
    console.print(str(found), soft_wrap=True, markup=False, highlight=False)
    written = f"{out}" if report is None else f"{out}, {report}"
    console.print(f"{written}; next: kernelprune bench {out}", markup=False, soft_wrap=True)


def _tell_step(point: Point) -> None:
    """One line for each network, as soon as there is one."""
    console.print(
        f"{point.name}: {point.milliseconds:.3f} ms, {point.speed_up:.2f} times as fast, drop "
        f"{point.drop:.4f}",
        markup=False,
        highlight=False,
    )


@dataclass(frozen=True)
class _Given:
    calibration: torch.Tensor
    evaluate: Callable[[nn.Module], float] | None = None
    confirm: Callable[[nn.Module], float] | None = None
    preparation: Preprocessing | None = None


def _network(path: Path, size: str | None) -> tuple[nn.Module, str | None, list[Value]]:
    """What to compress, the data set it was trained on, and its inputs, which an ONNX file has."""
    if path.is_dir():
        if size is not None:
            raise Error("--size is for ONNX files")
        from kernelprune.train import load_checkpoint, load_model

        network, options = load_model(load_checkpoint(path))
        return network.eval(), options.dataset, []
    if path.suffix.lower() != ".onnx":
        raise Error(f"{path}: give an ONNX file (.onnx) or a checkpoint's folder")
    from kernelprune.frontends.onnx.load import as_module, read_onnx

    graph = read_onnx(path, None if size is None else parse_batches(size, "--size"))
    inputs = list(graph.inputs)
    return as_module(graph), None, inputs


def _given(
    inputs: list[Value],
    source: str | None,
    data_path: str | None,
    labels: Path | None,
    options: ImageOptions,
    samples: int,
) -> _Given:
    """Images, and what evaluates a network where there are labels. Raises Error."""
    import torch

    if source is None:
        raise Error("say what to measure on: --images with a folder, a file .npy or a data set")
    if labels is not None and not Path(source).is_dir():
        raise Error("--labels are of the files in a folder: --images photos/")
    if Path(source).is_dir():
        return _of_folder(inputs, Path(source), labels, options, samples)
    if source.endswith(".npy"):
        return _Given(torch.from_numpy(read_array(Path(source))[:samples].copy()))
    return _of_data_set(source, data_path, samples)


def _of_data_set(name: str, data_path: str | None, samples: int) -> _Given:
    import torch

    from kernelprune.data import load
    from kernelprune.train import accuracy

    split = load(name, "train", path=data_path)
    places = torch.linspace(0, len(split) - 1, min(samples, len(split))).long()
    return _Given(
        split.images[places],
        lambda model: accuracy(model, load(name, "validation", path=data_path)),
        lambda model: accuracy(model, load(name, "test", path=data_path)),
    )


def _of_folder(
    inputs: list[Value], folder: Path, labels: Path | None, options: ImageOptions, samples: int
) -> _Given:
    """With labels every second image with one calibrates nothing: half of those evaluate each
    network, half the result alone."""
    from kernelprune.compression.pictures import (
        files_in,
        labels_in,
        pictures,
        preparation,
        spread,
    )

    files, value = files_in(folder), _input(inputs)
    prepared = preparation(value, options)
    if labels is None:
        return _Given(pictures(spread(files, samples), value, options), preparation=prepared)
    known = labels_in(labels, folder, files)
    apart = sorted(known)[1::2]
    if len(apart) < 2:
        raise Error(f"{labels}: {len(known)} labels are too few; give some hundred")
    rest = sorted(set(files) - set(apart))
    parts = [
        (pictures(part, value, options), [known[file] for file in part])
        for part in (apart[::2], apart[1::2])
    ]
    evaluate, confirm = (_accuracy(*part) for part in parts)
    return _Given(pictures(spread(rest, samples), value, options), evaluate, confirm, prepared)


def _accuracy(images: torch.Tensor, labels: list[int]) -> Callable[[nn.Module], float]:
    import torch

    def right(model: nn.Module) -> float:
        with torch.no_grad():
            found = torch.cat([model(part).argmax(1) for part in images.split(64)])
        return float((found == torch.tensor(labels)).float().mean())

    return right


def _input(inputs: list[Value]) -> Value:
    """The network's only input. Raises Error where it has several, or says nothing of it."""
    if not inputs:
        raise Error(
            "a folder of images is for ONNX files; give a checkpoint the name of a data set"
        )
    if len(inputs) > 1:
        raise Error(f"the network has {len(inputs)} inputs; use kernelprune.compress from Python")
    return inputs[0]


def _function(text: str) -> Callable[[nn.Module], float]:
    """Of ``module:function``, as Python would import it here. Raises Error."""
    module, colon, name = text.partition(":")
    if not colon or not module or not name:
        raise Error(f"--evaluate takes MODULE:FUNCTION, such as accuracy:top1; got {text!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # code of the user's
        raise Error(f"--evaluate {text}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise Error(f"--evaluate {text}: is no function")
    return found  # type: ignore[no-any-return]
