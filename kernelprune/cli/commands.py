"""The commands. Each turns its arguments into an options object and calls one function.

Imports of torch sit inside the commands: ``--help`` and ``inspect`` answer at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from kernelprune.cli.app import app
from kernelprune.cli.choices import (
    DATA_SETS,
    DataPath,
    Device,
    DevicePrecision,
    EngineDevice,
    File,
    Isa,
    PlanFile,
    Resume,
    Threads,
    choice,
    models,
)
from kernelprune.cli.console import make_console
from kernelprune.cli.parse import parse_assignments
from kernelprune.cli.pruning import chosen_recipe, command_line_of
from kernelprune.errors import Error
from kernelprune.train.options import PRECISIONS, SCHEDULES, PruneOptions

console = make_console()

PREPARED = "How images become the input: imagenet, unit, signed, bytes, or a file .json."
LABELS = "Names of the classes: a line each, or a list in a file .json."


def _share_cores() -> None:
    """Lets torch's threads spin only shortly for each other; before torch is loaded.

    By default they spin for long. On cores that another process uses too, training then takes up
    to five times as long; on idle cores nothing is lost.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("runs/demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="8x8 digits in place of Fashion-MNIST: seconds.")
    ] = False,
    threads: Annotated[int, typer.Option(help="Threads of the timed runs.")] = 1,
    data_path: DataPath = None,
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 1,
    minutes: Annotated[
        float, typer.Option(help="Train fewer steps if the demo would take longer.")
    ] = 5.5,
) -> None:
    """Train, prune, export and race one network: the whole story in at most 6 minutes.

    Trains a VGG on Fashion-MNIST, sparsifies it with Synaptic Strength, keeps a tenth of its
    connections, fine-tunes, writes a model file, and races it against torch, ONNX Runtime and
    OpenVINO.

    [bold]Examples[/bold]

      kernelprune demo

      kernelprune demo --quick --out /tmp/demo
    """
    if threads == 1:  # more of them shall be as quick as they can in the race
        _share_cores()
    from kernelprune.cli.demo import DemoOptions, run_demo

    options = DemoOptions(
        quick=quick, threads=threads, data_path=data_path, seed=seed, minutes=minutes
    )
    run_demo(out, options, console)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder for the checkpoints.")],
    model: Annotated[
        str,
        typer.Option(
            help="Of the zoo: vgg_small, resnet20, ...; a wrong name lists them.",
            autocompletion=models,
        ),
    ] = "vgg_small",
    data: Annotated[
        str,
        choice("Data set: fashion-mnist, digits, cifar10, cifar100, imagenet.", DATA_SETS),
    ] = "fashion-mnist",
    data_path: DataPath = None,
    epochs: Annotated[float, typer.Option(help="Passes over the training images.")] = 10.0,
    batch: Annotated[int, typer.Option(help="Images per step.")] = 128,
    learning_rate: Annotated[float, typer.Option("--learning-rate", "--lr")] = 0.1,
    schedule: Annotated[
        str, choice("Of the learning rate: one-cycle, cosine, step or constant.", SCHEDULES)
    ] = "one-cycle",
    precision: Annotated[str, choice("auto: bfloat16 where it is fast.", PRECISIONS)] = "auto",
    option: Annotated[
        list[str] | None,
        typer.Option("--model-option", help="More for the model, as NAME=NUMBER.", metavar="N=V"),
    ] = None,
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads; default: torch's.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
    checkpoint_steps: Annotated[
        int | None, typer.Option(help="Steps between checkpoints; default: one per epoch.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many training images.")] = None,
    tensorboard: Annotated[str | None, typer.Option(help="Folder for TensorBoard's files.")] = None,
    resume: Resume = False,
) -> None:
    """Train a model of the zoo.

    A killed training goes on with --resume and ends with the very same weights (on one thread bit
    by bit). Checkpoints are safetensors and JSON, no pickle.

    [bold]Examples[/bold]

      kernelprune train --out runs/vgg --epochs 5

      kernelprune train --out runs/vgg --epochs 5 --resume

      kernelprune train --out runs/wide --model vgg16 --model-option width=0.5

      torchrun --nproc-per-node 2 -m kernelprune.cli train --out runs/vgg
    """
    _share_cores()
    from kernelprune.prune.distributed import is_first
    from kernelprune.train import TrainOptions, fit

    options = TrainOptions(
        model=model,
        model_options=parse_assignments(option or []),
        dataset=data,
        data_path=data_path,
        epochs=epochs,
        batch_size=batch,
        learning_rate=learning_rate,
        schedule=schedule,
        precision=precision,
        device=device,
        threads=threads,
        seed=seed,
        checkpoint_steps=checkpoint_steps,
        limit=limit,
        tensorboard=tensorboard,
    )
    result = fit(options, out, resume=resume, console=console)
    if not is_first():
        return
    if result.validation is not None:
        console.print(f"validation accuracy {result.validation:.2%}, checkpoint in {out}")
    console.print(f"next: kernelprune prune --from {out} --out {out}-pruned")


@app.command()
@command_line_of(PruneOptions)
def prune(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the pruned checkpoint.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="A checkpoint, or a training's folder.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="YAML file with options; see the folder recipes.")
    ] = None,
    resume: Resume = False,
) -> None:
    """Drop connections or channels of a trained model and fine-tune the rest.

    With --recipe the options come from a file; those given here override it. A recipe with a
    section 'train' also trains, if there is no --from. Under torchrun all processes share the work.

    [bold]Examples[/bold]

      kernelprune prune --from runs/vgg --out runs/vgg-pruned --density 0.1 --macs 0.15

      kernelprune prune --from runs/vgg --out runs/vgg-dcp --method dcp --density 0.5 --samples 5000

      kernelprune prune --from runs/vgg --out runs/vgg-2ms --latency-ms 2 --latency-batch 1

      kernelprune prune --from runs/vgg --out runs/fitted --method reconstruct --finetune-epochs 0

      kernelprune prune --from runs/vgg-dcp --out runs/control --method scratch --finetune-epochs 20

      kernelprune prune --recipe recipes/digits.yaml --out runs/digits --density 0.1

      torchrun --nproc-per-node 2 -m kernelprune.cli prune --from runs/vgg --out runs/vgg-pruned
    """
    _share_cores()
    from kernelprune.prune.distributed import is_first
    from kernelprune.train import recipe_run

    chosen = chosen_recipe(context, recipe, source)
    result = recipe_run(chosen, out, source=source, resume=resume, console=console)
    if not is_first():
        return
    console.print(str(result.plan), soft_wrap=True)
    for word, (kept, total) in (
        ("connections", result.connections),
        ("multiply-adds", result.macs),
    ):
        console.print(f"{word}: {kept:,} of {total:,} ({kept / total:.1%})")
    before, after = result.validation
    console.print(f"validation accuracy {before:.2%} -> {after:.2%}, checkpoint in {result.folder}")
    console.print(f"next: kernelprune export --from {result.folder} --out model.safetensors")


@app.command()
def export(
    file: Annotated[
        Path | None, typer.Argument(help="An ONNX file to turn into a model file.", metavar="ONNX")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="A checkpoint, or its folder.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The model file to write.")] = Path("model.safetensors"),
    evaluate: Annotated[
        bool, typer.Option(help="Note the accuracy on the test images in the file.")
    ] = True,
    size: Annotated[
        str | None,
        typer.Option(help="Per image, such as 3,224,224, where the ONNX file leaves it free."),
    ] = None,
    preprocessing: Annotated[str | None, typer.Option(help=PREPARED)] = None,
    labels: Annotated[Path | None, typer.Option(help=LABELS)] = None,
) -> None:
    """Write a checkpoint, or an ONNX file, as one model file that the engine runs.

    BN is folded, activations are fused, dropped kernels and dead channels are left out; the result
    is compared with the model before it is written. Zeros in an ONNX file are dropped connections.

    [bold]Examples[/bold]

      kernelprune export --from runs/vgg-pruned --out vgg.safetensors

      kernelprune export net.onnx --out net.safetensors --size 3,224,224

      kernelprune export net.onnx --preprocessing imagenet --labels classes.txt
    """
    from kernelprune.cli.exporting import export_any
    from kernelprune.report import count

    graph = export_any(
        file,
        source,
        out,
        evaluate=evaluate,
        size=size,
        preprocessing=preprocessing,
        labels=labels,
    )
    console.print(
        f"{out}: {graph.kept_connections():,} connections, {count(graph.macs())} multiply-adds"
    )
    console.print(f"next: kernelprune bench {out}")


@app.command()
def run(
    file: File,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Photographs, folders of them, or patterns with *.", metavar="[IMAGE]..."
        ),
    ] = None,
    data: Annotated[
        str | None, choice("Data set whose test images to classify.", DATA_SETS)
    ] = None,
    data_path: DataPath = None,
    input: Annotated[Path | None, typer.Option(help="Array .npy, float32 [N, C, H, W].")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where scores go, .npy; those of images .json or .csv.")
    ] = None,
    top: Annotated[int, typer.Option(help="Classes to show for each image.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print classes of images as json.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print classes of images as csv.")] = False,
    preprocessing: Annotated[str | None, typer.Option(help=PREPARED)] = None,
    labels: Annotated[Path | None, typer.Option(help=LABELS)] = None,
    batch: Annotated[int, typer.Option(help="Images per call.")] = 64,
    threads: Threads = 1,
    isa: Isa = None,
    precision: DevicePrecision = "fast",
    device: EngineDevice = "cpu",
    plan: PlanFile = None,
) -> None:
    """Run a model file on photographs (prints the best classes), test images (the accuracy), or an
    array.

    [bold]Examples[/bold]

      kernelprune run net.safetensors photo.jpg

      kernelprune run net.safetensors photos/ --csv --top 1

      kernelprune run vgg.safetensors --data fashion-mnist

      kernelprune run vgg.safetensors --input x.npy --output scores.npy

      kernelprune run vgg.safetensors --data fashion-mnist --device cuda --precision half
    """
    from kernelprune.cli.running import run_file, run_images

    if images:
        run_images(
            file,
            images,
            others=[option for option, given in (("--data", data), ("--input", input)) if given],
            form="json" if json else "csv" if csv else "table",
            output=output,
            engine={"threads": threads, "isa": isa, "precision": precision, "device": device,
                    "plan": plan},
            top=top,
            preprocessing=preprocessing,
            labels=labels,
            batch=batch,
        )  # fmt: skip
        return
    if json or csv or preprocessing is not None or labels is not None:
        raise Error("--json, --csv, --preprocessing and --labels are for images")
    console.print(
        run_file(
            file,
            data=data,
            data_path=data_path,
            input_path=input,
            output_path=output,
            batch=batch,
            threads=threads,
            isa=isa,
            precision=precision,
            device=device,
            plan=plan,
        )
    )


@app.command()
def inspect(
    file: File,
    batch: Annotated[int, typer.Option(help="Batch size that the kernels are for.")] = 1,
    threads: Threads = 1,
    isa: Isa = None,
    precision: DevicePrecision = "fast",
    device: EngineDevice = "cpu",
    plan: PlanFile = None,
) -> None:
    """Show what is in a model file: layers, densities, multiply-adds, kernels, origin.

    [bold]Examples[/bold]

      kernelprune inspect vgg.safetensors

      kernelprune inspect vgg.safetensors --batch 64
    """
    from kernelprune.cli.running import inspect_file

    for part in inspect_file(
        file,
        batch=batch,
        threads=threads,
        isa=isa,
        precision=precision,
        device=device,
        plan=plan,
    ):
        console.print(part)


@app.command()
def doctor() -> None:
    """Check this installation: versions, instruction sets, speed, peers, data, GPUs, a self-test.

    [bold]Examples[/bold]

      kernelprune doctor
    """
    from kernelprune.cli.doctor import examine

    healthy, parts = examine()
    for part in parts:
        console.print(part)
    if not healthy:
        raise typer.Exit(1)
