"""Teams of threads: the same results however many, wherever they run, and whatever else runs."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder

from kernelprune import _core
from kernelprune.runtime import Engine, available_isas

SAME = (1, 1, 1, 1)


def network(seed: int = 0) -> tuple[bytes, tuple[int, int, int]]:
    """3x3 with stride 1 and 2, 1x1, residual, pools, odd numbers of channels, a linear layer."""
    b = GraphBuilder(np.random.default_rng(seed))
    a = b.conv2d(b.input((3, 19, 13)), 7, padding=SAME, activation="relu6")
    c = b.conv2d(a, 7, padding=SAME, density=0.4, residual=a, activation="relu6")
    d = b.conv2d(c, 11, stride=(2, 2), padding=SAME, density=0.5, activation="relu6")
    e = b.conv2d(d, 13, kernel=(1, 1), density=0.3, activation="relu6")
    f = b.pool("max_pool2d", e, (2, 2), (2, 2))
    g = b.conv2d(f, 5, padding=SAME, density=0.5, activation="relu6")
    h = b.node("flatten", [g], (int(np.prod(b.shapes[g])),))
    return b.file(b.linear(h, 9, density=0.7)), (3, 19, 13)


def one_conv(channels: int, out: int, size: tuple[int, int], density: float, **options) -> bytes:
    b = GraphBuilder(np.random.default_rng(channels))
    return b.file(b.conv2d(b.input((channels, *size)), out, density=density, **options))


def images(batch: int, shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, *shape)).astype(np.float32)


def load(model: bytes, threads: int, isa: str, choices=None) -> _core.Engine:
    return _core.Engine.load_bytes(model, "network", threads, isa, 0, choices=choices or {})


def choices_of_rank(engine: _core.Engine, rank: int) -> dict[tuple[int, str], str]:
    """Every layer takes its candidate of this rank, counted round."""
    return {(c.lanes, c.node): c.names[rank % len(c.names)] for c in engine.candidates}


SHAPES = [
    (1, 1, (5, 5), 1.0, {}),
    (3, 2, (14, 14), 0.6, {"padding": SAME}),
    (16, 17, (8, 8), 0.1, {"padding": SAME}),
    (20, 9, (4, 4), 0.3, {"padding": SAME}),
    (33, 40, (2, 2), 0.2, {"padding": SAME}),
    (5, 6, (40, 33), 0.5, {"padding": SAME}),
    (6, 5, (17, 9), 0.5, {"padding": SAME, "stride": (2, 2)}),
    (19, 23, (7, 7), 0.3, {"kernel": (1, 1)}),
    (8, 12, (7, 7), 1.0, {"kernel": (1, 1)}),
    (50, 31, (1, 1), 0.4, {"kernel": (1, 1)}),
    (40, 6, (48, 48), 0.2, {"padding": SAME, "stride": (2, 2)}),  # in several ranges of rows
    (3, 4, (20, 20), 1.0, {"kernel": (7, 7), "stride": (2, 2), "padding": (3, 3, 3, 3)}),
]


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}-{s[1]} {s[2][0]}x{s[2][1]}")
def test_every_candidate_is_bit_identical_for_any_number_of_threads(shape, isa: str) -> None:
    """A candidate whose parts overlap, leave a gap, or need more than the barriers give."""
    channels, out, size, density, options = shape
    model = one_conv(channels, out, size, density, **options)
    planned = load(model, 1, isa)
    for rank in range(max(len(layer.names) for layer in planned.candidates)):
        choices = choices_of_rank(planned, rank)
        engines = [load(model, threads, isa, choices) for threads in (1, 2, 3, 4, 5)]
        for batch in (1, 17):
            x = images(batch, (channels, *size))
            alone, *others = (engine.run([x])[0] for engine in engines)
            for result in others:
                np.testing.assert_array_equal(result, alone)


@pytest.mark.parametrize("isa", available_isas())
def test_networks_are_bit_identical_for_any_number_of_threads(isa: str) -> None:
    """The barrier after a step is what keeps the next one from reading half of its input."""
    model, shape = network()
    planned = load(model, 1, isa)
    for rank in range(3):
        choices = choices_of_rank(planned, rank)
        engines = [load(model, threads, isa, choices) for threads in (1, 2, 3, 4, 5)]
        for batch in (1, 2, 9, 16, 33, 50, 81):
            x = images(batch, shape)
            alone, *others = (engine.run([x])[0] for engine in engines)
            for result in others:
                np.testing.assert_array_equal(result, alone)


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize(
    "ratio", [None, (1, 1, 1), (100, 1, 1), (100, 10, 1), (1, 1, 100), (4, 1, 3), (3, 2, 1)]
)
def test_every_image_of_a_batch_is_computed_once(isa: str, ratio) -> None:
    """Whatever the modes cost, a split that skips or repeats images gives wrong scores."""
    b = GraphBuilder(np.random.default_rng(0), integers=True)
    shape = (3, 6, 5)
    y = b.conv2d(b.input(shape), 4, padding=SAME, density=0.6, activation="relu")
    model = b.file(b.linear(b.node("flatten", [y], (4 * 6 * 5,)), 9))
    planned = load(model, 1, isa)
    modes = sorted({layer.lanes for layer in planned.candidates}, reverse=True)
    seconds = {} if ratio is None else dict(zip(modes, ratio, strict=False))
    seconds = {lanes: float(value) for lanes, value in seconds.items()}
    engines = [
        _core.Engine.load_bytes(
            model, "network", threads, isa, 0, precision="strict", seconds=seconds
        )
        for threads in (1, 2)
    ]
    x = np.random.default_rng(2).integers(-3, 4, (40, *shape)).astype(np.float32)
    expected = planned.run_reference([x])[0]
    assert len(np.unique(expected, axis=0)) == 40
    for batch in range(1, 41):
        for engine in engines:
            np.testing.assert_array_equal(engine.run([x[:batch]])[0], expected[:batch])


def test_several_engines_run_at_once(tmp_path: Path) -> None:
    """Teams that shared a worker or a barrier would wait for each other for ever, or mix up their
    work; here there are many more threads than cores."""
    cases = []
    for seed, threads in enumerate((1, 2, 3, 5, 4, 2)):
        model, shape = network(seed)
        engine = load(model, threads, "")
        x = images((1, 3, 16, 33, 8, 1)[seed], shape, seed)
        cases.append((engine, x, engine.run([x])[0]))
    wrong: list[int] = []

    def work(index: int) -> None:
        for turn in range(12):
            engine, x, expected = cases[(index + turn) % len(cases)]
            if not np.array_equal(engine.run([x])[0], expected):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_more_threads_than_cores(tmp_path: Path) -> None:
    """Work is cut for all that were asked for, and who is there must do it all."""
    model, shape = network()
    x = images(1, shape)
    expected = load(model, 1, "").run([x])[0]
    engine = load(model, 300, "")
    for _ in range(2):
        np.testing.assert_array_equal(engine.run([x])[0], expected)


def run_script(model: bytes, folder: Path, body: str) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(model)
    program = f"""
import os, sys, threading
import numpy as np
from kernelprune.runtime import Engine
x = np.random.default_rng(1).standard_normal((1, 3, 19, 13)).astype(np.float32)
expected = Engine({str(path)!r}).run(x)
engine = Engine({str(path)!r}, threads=3)
right = lambda: np.array_equal(engine.run(x), expected)
{body}
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_a_forked_child_runs_too(tmp_path: Path) -> None:
    """Data loaders and servers fork; a child that waits for its parent's workers hangs."""
    body = """
assert right()
for _ in range(3):
    child = os.fork()
    if child == 0:
        os._exit(0 if right() and right() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert right()
"""
    run_script(network()[0], tmp_path, body)


@pytest.mark.skipif(not hasattr(__import__("os"), "sched_setaffinity"), reason="no affinity here")
def test_threads_on_one_core(tmp_path: Path) -> None:
    """In a container with one core a thread that only spins keeps the others from working."""
    body = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
assert all(right() for _ in range(20))
"""
    run_script(network()[0], tmp_path, body)


def test_a_process_ends_while_its_workers_sleep(tmp_path: Path) -> None:
    """Workers outlive every engine; leaving the interpreter must not wait for them or crash."""
    body = """
caller = threading.Thread(target=right)
caller.start(); caller.join()
assert right()
del engine
"""
    run_script(network()[0], tmp_path, body)


def test_engine_of_all_cores(tmp_path: Path) -> None:
    """threads=None must mean the cores that this process may use, not those of the machine."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(network()[0])
    engine = Engine(path, threads=None)
    assert engine.threads >= 1
    x = images(3, (3, 19, 13))
    np.testing.assert_array_equal(engine.run(x), Engine(path).run(x))
