"""``kernelprune report``: one page about a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kernelprune.cli.app import app
from kernelprune.cli.choices import File, Isa, PlanFile, Precision, Threads
from kernelprune.cli.console import make_console

console = make_console()


@app.command()
def report(
    file: File,
    html: Annotated[
        Path | None, typer.Option("--html", help="The page to write; default: FILE.html.")
    ] = None,
    dense: Annotated[
        Path | None, typer.Option(help="Model file of the network before pruning, to compare.")
    ] = None,
    strengths: Annotated[
        Path | None,
        typer.Option(help="Folder that prune wrote, or json with a plan, such as demo.json."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images per run.")] = 1,
    threads: Threads = 1,
    isa: Isa = None,
    precision: Precision = "fast",
    plan: PlanFile = None,
    seconds: Annotated[
        float, typer.Option("--seconds", "-s", help="How long to time each network.")
    ] = 1.0,
    time: Annotated[bool, typer.Option(help="Run the network for its times.")] = True,
) -> None:
    """Write one HTML page about a model file: sizes, times, layers, graph, connections, kernels.

    The page needs nothing beside it: no script and no file from elsewhere. The numbers are those
    of inspect and bench; --dense puts the network before pruning beside them.

    [bold]Examples[/bold]

      kernelprune report vgg.safetensors

      kernelprune report pruned.safetensors --dense dense.safetensors --html vgg.html

      kernelprune report pruned.safetensors --strengths runs/pruned --batch 16
    """
    from kernelprune.cli.progress import show_progress
    from kernelprune.cli.strengths import read_strengths
    from kernelprune.report import PageOptions, write_page

    html = file.with_suffix(".html") if html is None else html
    with show_progress() as progress:
        options = PageOptions(
            dense=dense,
            batch=batch,
            threads=threads,
            isa=isa,
            precision=precision,
            plan=plan,
            seconds=seconds,
            time=time,
            strengths=None if strengths is None else read_strengths(strengths),
            progress=progress,
        )
        write_page(file, html, options)
    console.print(f"written to {html}")
