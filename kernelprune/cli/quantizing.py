"""``kernelprune quantize``. No torch before the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kernelprune.cli.app import app
from kernelprune.cli.console import make_console
from kernelprune.cli.pruning import command_line_of
from kernelprune.cli.running import read_array
from kernelprune.errors import Error
from kernelprune.quantization.options import QuantizeOptions

if TYPE_CHECKING:
    import torch

    from kernelprune.data import Dataset

console = make_console()


@app.command()
@command_line_of(QuantizeOptions)
def quantize(
    context: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(
            help="A model file (.safetensors), or a checkpoint's folder.", metavar="MODEL"
        ),
    ],
    out: Annotated[Path, typer.Option(help="The model file to write.")] = Path("int8.safetensors"),
    images: Annotated[
        str | None,
        typer.Option(
            help="Unlabelled images to measure on: an array .npy, float32 [N, C, H, W], or a data "
            "set, of whose training images some are taken; default: the checkpoint's data set.",
            metavar="FILE|DATA SET",
        ),
    ] = None,
    data_path: Annotated[str | None, typer.Option(help="Folder with the data set's files.")] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="Leave this layer float32: a name, or a pattern with *; repeatable."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Leave the most sensitive layers float32 until the accuracy on the data set's "
            "validation images is at most so much lower, such as 0.01."
        ),
    ] = None,
) -> None:
    """Turn a trained model's weights and activations into bytes: a file about a quarter as large.

    Measures the range of every value on a few hundred images; needs no labels and no training. The
    table says of each layer what its bytes stand for, and how far its output is from the float32
    model's (SNR: above 30 dB little is lost, below 15 dB a layer is worth --ignore).

    [bold]Examples[/bold]

      kernelprune quantize vgg.safetensors --images calibration.npy --out vgg-int8.safetensors

      kernelprune quantize runs/vgg-pruned --out vgg-int8.safetensors

      kernelprune quantize vgg.safetensors --images fashion-mnist --max-drop 0.005
    """
    from kernelprune.cli.progress import show_progress
    from kernelprune.frontends.torch import export
    from kernelprune.quantization import quantize as quantized_model

    names = QuantizeOptions.names()
    options = {name: value for name, value in context.params.items() if name in names}
    chosen = QuantizeOptions(**options)
    network, data = _network(model)
    given, evaluate = _images(images or data, data_path, chosen.samples)
    if max_drop is not None and evaluate is None:
        raise Error("--max-drop needs labels: give --images the name of a data set")
    with show_progress() as progress:
        found = quantized_model(
            network,
            given,
            ignore=ignore or (),
            evaluate=evaluate if max_drop is not None else None,
            max_drop=max_drop,
            progress=progress,
            **options,
        )
    export(found, given[:1], out, method=f"int8 ({chosen.method})")
    console.print(str(found.report), soft_wrap=True, markup=False, highlight=False)
    console.print(f"{out}: {_size(out)}, next: kernelprune bench {out}", markup=False)


def _network(path: Path) -> tuple[Any, str | None]:
    """What to quantise, and the data set it was trained on."""
    if not path.is_dir():
        return path, None
    from kernelprune.train import load_checkpoint, load_model

    network, options = load_model(load_checkpoint(path))
    return network, options.dataset


def _images(source: str | None, data_path: str | None, samples: int) -> tuple[torch.Tensor, Any]:
    """At most ``samples`` images, and the accuracy of a model on others of the data set, a
    function; None for an array. Raises Error when neither was named."""
    import torch

    if source is None:
        raise Error("say what to measure on: --images calibration.npy or --images fashion-mnist")
    if source.endswith(".npy"):
        return torch.from_numpy(read_array(Path(source))[:samples].copy()), None
    from kernelprune.data import load
    from kernelprune.train import accuracy

    split = load(source, "train", path=data_path)
    return _spread(split, samples), lambda model: accuracy(
        model, load(source, "validation", path=data_path)
    )


def _spread(split: Dataset, count: int) -> torch.Tensor:
    """Of all of the data set: in a folder the images of one class follow each other."""
    import torch

    places = torch.linspace(0, len(split) - 1, min(count, len(split))).long()
    return split.images[places]


def _size(path: Path) -> str:
    from kernelprune.report import file_size

    return file_size(path.stat().st_size)
