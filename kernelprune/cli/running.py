"""What ``run`` and ``inspect`` do with a model file."""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kernelprune.errors import Error, ShapeError
from kernelprune.files import opened, write_bytes
from kernelprune.runtime import Engine


def run_images(
    file: Path,
    images: Sequence[str],
    *,
    others: Sequence[str],
    form: str,
    output: Path | None,
    engine: dict[str, Any],
    **options: Any,
) -> None:
    """Prints the best classes of photographs, as a "table", "json" or "csv", or writes them.
    ``engine``: options of the engine; ``options``: of ``classify_files``; ``others``: what else is
    to be run on.

    Raises Error, as ``classify_files`` does.
    """
    from kernelprune.cli import classifying
    from kernelprune.cli.progress import show_progress

    if others:
        raise Error(f"give either images or {others[0]}, not both")
    for name in ("batch", "top"):
        if options[name] < 1:
            raise Error(f"--{name} must be at least 1, got {options[name]}")
    runner = Engine(file, **engine)
    if len(runner.inputs) != 1:
        raise Error(f"{file} has {len(runner.inputs)} inputs; use kernelprune.Engine from Python")
    with show_progress() as show:

        def tell(done: int, of: int) -> None:
            show(f"{done} of {of} images", done / of)

        found = classifying.classify_files(runner, images, tell=tell, **options)
    if output is not None:
        classifying.save(found, output)
        print(f"classes of {len(found):,} images written to {output}")
        return
    forms = {"table": classifying.as_table, "json": classifying.as_json, "csv": classifying.as_csv}
    print(forms[form](found).rstrip("\n"))


def run_file(
    file: Path,
    *,
    data: str | None = None,
    data_path: str | None = None,
    input_path: Path | None = None,
    output_path: Path | None = None,
    batch: int = 64,
    threads: int = 1,
    isa: str | None = None,
    precision: str = "fast",
    device: str = "cpu",
    plan: Path | None = None,
) -> str:
    """Runs a model file over a test split or an array, ``batch`` images at a time.

    Returns:
        One line: accuracy or output shape, time, and where the scores went.

    Raises:
        Error: Not exactly one of ``data`` and ``input_path``; a file cannot be read or written.
        ShapeError: The images do not suit the model.
    """
    if (data is None) == (input_path is None):
        raise Error("say what to run on: photo.jpg, --data fashion-mnist or --input x.npy")
    if batch < 1:
        raise Error(f"--batch must be at least 1, got {batch}")
    engine = Engine(file, device, threads, isa, precision=precision, plan=plan)
    if len(engine.inputs) != 1:
        raise Error(f"{file} has {len(engine.inputs)} inputs; use kernelprune.Engine from Python")
    labels = None
    images: Any
    if data is not None:
        from kernelprune.data import load

        split = load(data, "test", path=data_path)
        images, labels = split.images, split.labels.numpy()
    else:
        assert input_path is not None
        images = read_array(input_path)
    _check_shape(images, engine, data or str(input_path))
    parts = []
    seconds = 0.0
    for i in range(0, len(images), batch):
        part = np.asarray(images[i : i + batch])  # those in files are read here
        started = time.perf_counter()
        parts.append(engine.run(part))
        seconds += time.perf_counter() - started
    first = [part if isinstance(part, np.ndarray) else part[0] for part in parts]
    scores = np.concatenate(first)
    rate = f"{len(images):,} images in {seconds:.3f} s ({len(images) / seconds:,.0f} images/s)"
    if labels is not None:
        right = float(np.mean(scores.argmax(axis=1) == labels))
        text = f"accuracy {right:.2%} on {rate}"
    else:
        text = f"scores {list(scores.shape)} from {rate}"
    if output_path is None:
        return text
    content = io.BytesIO()  # straight to a full disk, numpy says how many numbers, but not why
    np.save(content, scores)
    write_bytes(output_path, content.getvalue(), "the scores")
    return f"{text}, written to {output_path}"


def read_array(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file as float32, in memory bounded by the file's size."""
    with opened(path) as file:
        try:
            array = _array_of(file)
        except Exception as error:  # numpy's parser of headers raises anything
            raise Error(f"{path}: not an array file of numpy ({error})") from error
    if not np.issubdtype(array.dtype, np.floating):
        raise ShapeError(f"{path}: holds {array.dtype}, the model takes float32")
    try:
        with np.errstate(over="raise"):
            return array.astype(np.float32, copy=False)
    except FloatingPointError:
        raise ShapeError(f"{path}: holds numbers that are too large for float32") from None


def _array_of(file: BinaryIO) -> np.ndarray:
    """Raises anything for a file that holds no array, or less or more than its header says."""
    if file.read(4) in (b"PK\x03\x04", b"PK\x05\x06"):
        raise ValueError("it holds several arrays, .npz; save one with numpy.save")
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    shape, _, kind = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
    have = os.fstat(file.fileno()).st_size - file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != have:
        raise ValueError(f"{have:,} bytes are not {list(shape)} of {kind}; is it cut?")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _check_shape(images: Any, engine: Engine, source: str) -> None:
    wanted = engine.inputs[0][1]
    if tuple(images.shape[1:]) != wanted or not images.shape or len(images) == 0:
        expected = ", ".join(["N", *map(str, wanted)])
        raise ShapeError(f"{source}: {list(images.shape)}, but {engine.path} takes [{expected}]")


def inspect_file(
    file: Path,
    *,
    batch: int = 1,
    threads: int = 1,
    isa: str | None = None,
    precision: str = "fast",
    device: str = "cpu",
    plan: Path | None = None,
) -> list[Any]:
    """Tables of what a model file holds and how the engine would run it.

    Raises:
        Error: No such file.
        FormatError: It is not a valid model.
    """
    from kernelprune.format import read
    from kernelprune.report import layer_table, model_table

    if batch < 1:
        raise Error(f"--batch must be at least 1, got {batch}")
    graph, metadata = read(file)
    engine = Engine(file, device, threads, isa, precision=precision, plan=plan)
    return [
        f"{file} (kernels of {engine.isa} at batch {batch}; {engine.weight_bytes / 1e6:.1f} MB of "
        f"weights in memory, {engine.workspace_bytes(batch) / 1e6:.1f} MB of activations)",
        layer_table(engine.layers(batch)),
        model_table(graph, metadata, file.stat().st_size),
    ]
