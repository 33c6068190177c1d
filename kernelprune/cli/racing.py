"""``kernelprune bench`` and ``kernelprune tune``: what takes how long on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kernelprune.benchmarking.options import PEERS, PRECISIONS as BENCH_PRECISIONS
from kernelprune.cli.app import app
from kernelprune.cli.choices import File, Isa, PlanFile, Precision, Threads, choice, several
from kernelprune.cli.console import make_console
from kernelprune.cli.parse import parse_batches, parse_names

console = make_console()


@app.command()
def bench(
    file: File,
    batch: Annotated[str, typer.Option("--batch", "-b", help="Batch sizes, with commas.")] = "1,64",
    threads: Annotated[
        int, typer.Option("--threads", "-t", help="Threads of every engine, ours and theirs.")
    ] = 1,
    against: Annotated[
        str | None,
        typer.Option(
            help="torch, onnxruntime, openvino, mnn, mnn-sparse, openvino-bf16, openvino-int8, "
            "onnxruntime-int8, mnn-int8, with commas; or none. Those that are not installed are "
            "left out. Default: the first five; for int8 the others but mnn-int8, and openvino.",
            autocompletion=several(PEERS),
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", "-s", help="Time per engine and batch size.")
    ] = 2.0,
    iterations: Annotated[
        int | None,
        typer.Option("--iterations", "-n", help="Exactly so many calls, in place of --seconds."),
    ] = None,
    warm_up: Annotated[int, typer.Option(help="Calls before the clock starts.")] = 3,
    dense: Annotated[
        str | None,
        typer.Option(help="Model file that dense engines run, such as the unpruned one."),
    ] = None,
    torch_compile: Annotated[
        bool,
        typer.Option("--torch-compile", help="torch may also be compiled: up to a minute more."),
    ] = False,
    start_up: Annotated[
        bool,
        typer.Option(help="Also load time, first inference and memory, in processes of their own."),
    ] = True,
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Also time each layer, with its share of the peak.")
    ] = False,
    isa: Isa = None,
    precision: Annotated[
        str,
        choice(
            "int8: quantise the model first, and race it against float32 and the others' int8; "
            "float32 (fast), or strict: without Winograd. A file of bytes is raced as int8.",
            BENCH_PRECISIONS,
        ),
    ] = "fast",
    images: Annotated[
        Path | None,
        typer.Option(help="Images to quantise with, .npy, float32 [N, C, H, W]; else random ones."),
    ] = None,
    plan: PlanFile = None,
    json: Annotated[Path | None, typer.Option(help="Also write the result here.")] = None,
) -> None:
    """Race a model file against other engines, all in one interleaved run.

    The others compute the same network in float32 with zeros in place of dropped kernels
    (mnn-sparse: with its own sparse kernels); every output is compared before the clock starts.
    In int8 and bfloat16 that is a comparison with a loose bound: all round in their own way.
    Engines take turns of 30 ms, so that a change of the machine's speed hits all of them:
    the ratios hold even where single times drift.

    [bold]Reading the table[/bold]

    median, mean, p90, p99 and min are milliseconds per call of one batch; speed-up is that engine's
    median over ours. 1/x in the title says how many multiply-adds are left: the most to hope for.

    [bold]Examples[/bold]

      kernelprune bench vgg.safetensors

      kernelprune bench vgg.safetensors --batch 1,16 --threads 2 --per-layer --json vgg.json

      kernelprune bench pruned.safetensors --dense dense.safetensors --torch-compile

      kernelprune bench vgg.safetensors --precision int8 --images calibration.npy

      kernelprune bench vgg.safetensors --against none --batch 8 --iterations 1000 --no-start-up
    """
    from kernelprune.benchmarking import FLOAT32_PEERS, BenchOptions, benchmark
    from kernelprune.benchmarking.precision import holds_bytes
    from kernelprune.cli.progress import show_progress
    from kernelprune.cli.running import read_array
    from kernelprune.report import benchmark_table, difference_line, layer_table, start_up_table

    names = None if against is None else parse_names(against)
    if names is None and precision != "int8" and not holds_bytes(file):
        names = FLOAT32_PEERS
    options = BenchOptions(
        batch=parse_batches(batch),
        threads=threads,
        against=names,
        seconds=seconds,
        iterations=iterations,
        warm_up=warm_up,
        isa=isa,
        precision=precision,
        calibration=None if images is None else [read_array(images)],
        plan=None if plan is None else str(plan),
        dense_path=dense,
        torch_compile=torch_compile,
        start_up=start_up,
        per_layer=per_layer,
    )
    with show_progress() as progress:
        result = benchmark(file, options=options, progress=progress)
    console.print(benchmark_table(result))
    if result.precision == "int8":
        console.print(difference_line(result))
    for name, reason in result.missing.items():
        console.print(f"{name}: {reason}")
    start = start_up_table(result)
    if start is not None:
        console.print(start)
    for size, layers in result.layers.items():
        console.print(layer_table(layers, title=f"batch {size}", batch=size))
    if json is not None:
        result.to_json(json)
        console.print(f"written to {json}")


@app.command()
def tune(
    file: File,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The plan; default: FILE.plan.json.")
    ] = None,
    threads: Threads = 1,
    isa: Isa = None,
    precision: Precision = "fast",
    lanes: Annotated[
        int | None, typer.Option(help="Only so many images side by side; default: all modes.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="For each candidate of the network and round.")
    ] = 0.15,
) -> None:
    """Measure every way of computing every layer on this machine, and save the fastest as a plan.

    Without a plan the engine takes what should be fastest by its cost model. Tune on an idle
    machine, with the number of threads that you will use. A plan is for one model file, one
    instruction set and one precision; with the same plan results are always the same.

    [bold]Examples[/bold]

      kernelprune tune vgg.safetensors

      kernelprune tune vgg.safetensors --threads 2 -o vgg-2.plan.json

      kernelprune run vgg.safetensors --plan vgg.plan.json --data fashion-mnist
    """
    from kernelprune.cli.progress import show_progress
    from kernelprune.report import tuning_table
    from kernelprune.runtime import tune as measure

    out = file.with_suffix(".plan.json") if out is None else out
    with show_progress() as progress:
        tuning = measure(
            file,
            threads=threads,
            isa=isa,
            lanes=lanes,
            precision=precision,
            seconds=seconds,
            progress=progress,
        )
    tuning.plan.save(out)
    console.print(tuning_table(tuning))
    console.print(f"written to {out}")
