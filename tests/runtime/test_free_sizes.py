"""Maps of any size through one engine: results, refusals, memory, threads, copies."""

from __future__ import annotations

import pickle
import re
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from op_files import MODES
from runtime.sized_networks import ALL, plain, residual_network, u_net

from kernelprune import Engine, ShapeError, _core

PLAIN_LINUX = sys.platform == "linux" and "libasan" not in Path("/proc/self/maps").read_text()


def core(content: bytes, isa: str = "", lanes: int = 0, threads: int = 1) -> _core.Engine:
    return _core.Engine.load_bytes(content, "file", threads, isa, lanes)


def engine_of(content: bytes, folder: Path, **options) -> Engine:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return Engine(path, **options)


def image(rng: np.random.Generator, channels: int, height: int, width: int, batch: int = 1):
    return rng.standard_normal((batch, channels, height, width)).astype(np.float32)


def sizes(rng: np.random.Generator, step: int, count: int) -> list[tuple[int, int]]:
    """Multiples of ``step`` from 4 to 40."""
    most = 40 // step
    least = -(-4 // step)
    return [tuple(step * rng.integers(least, most + 1, 2)) for _ in range(count)]


def check_close(found: list[np.ndarray], expected: list[np.ndarray], what: str) -> None:
    assert len(found) == len(expected)
    for got, want in zip(found, expected, strict=True):
        assert got.shape == want.shape, what
        error = np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)
        assert error <= 1e-5, f"{what}: {error:.2g}"


@pytest.mark.parametrize(("isa", "lanes"), MODES)
@pytest.mark.parametrize("name", ALL)
def test_other_sizes(name: str, isa: str, lanes: int) -> None:
    """If this fails, an engine computes another size with the offsets, tables or divisors of the
    example's size, or of the size before."""
    make, step = ALL[name]
    engine, rng = core(make(), isa, lanes), np.random.default_rng(lanes)
    channels = engine.inputs[0].shape[0]
    for height, width in sizes(rng, step, 20):
        x = image(rng, channels, height, width, batch=int(rng.integers(1, 4)))
        what = f"{name}, {height}x{width}, batch {len(x)}"
        check_close(engine.run([x]), engine.run_reference([x]), what)


@pytest.mark.parametrize("make", [u_net, residual_network])
def test_as_the_file_of_that_size(make) -> None:
    """If this fails, what a model computes depends on the size that it was exported with."""
    engine, other = core(make()), core(make(size=(28, 12)))
    x = image(np.random.default_rng(1), 3, 28, 12, batch=2)
    check_close(engine.run([x]), other.run_reference([x]), "28x12")


def test_what_an_engine_says_about_its_sizes(tmp_path: Path) -> None:
    """If this fails, a caller cannot find out what sizes he may give."""
    assert engine_of(u_net(), tmp_path).free_sizes == ("height", "width")
    assert engine_of(u_net(free="w"), tmp_path).free_sizes == ("width",)
    assert engine_of(u_net(free="h"), tmp_path).free_sizes == ("height",)


@pytest.mark.parametrize(
    ("free", "shape", "message"),
    [
        ("hw", (3, 18, 24), r"18x24.*give multiples of 4"),
        ("hw", (3, 16, 25), r"16x25.*give multiples of 4"),
        ("w", (3, 20, 24), r"the height may be 16, the width any up to 1048576"),
        ("h", (3, 16, 28), r"the height may be any up to 1048576, the width 24"),
    ],
)
def test_refused_sizes(free: str, shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    """If this fails, a size that the model cannot have gives nonsense, or an error that does not
    say which sizes it can have."""
    engine = engine_of(u_net(free=free), tmp_path)
    x = np.zeros((1, *shape), np.float32)
    for run in (engine.run, engine.run_reference, engine.profile):
        with pytest.raises(ShapeError, match=message):
            run(x)


@pytest.mark.parametrize("shape", [(4, 16, 24), (16, 24), (3, 16, 24, 1), (3, 0, 24)])
def test_what_is_not_free(shape: tuple[int, ...], tmp_path: Path) -> None:
    """If this fails, other channels or ranks pass for another size."""
    engine = engine_of(u_net(), tmp_path)
    with pytest.raises(ShapeError):
        engine.run(np.zeros((1, *shape), np.float32))


def test_any_side_of_one(tmp_path: Path) -> None:
    """If this fails, the smallest maps are refused by a network that takes any, or crash it."""
    engine, rng = engine_of(residual_network(), tmp_path), np.random.default_rng(2)
    for height, width in ((1, 1), (1, 40), (33, 1), (2, 3)):
        x = image(rng, 3, height, width)
        found, wanted = engine.run(x), engine.run_reference(x)
        check_close(list(found), list(wanted), f"{height}x{width}")


def resident() -> int:
    """Bytes of this process in memory."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


@pytest.mark.skipif(not PLAIN_LINUX, reason="looks at the memory of a process")
def test_plans_are_bounded() -> None:
    """If this fails, a server whose images all differ in size grows until it is killed: every size
    has kept its plan or its workspace."""
    engine, rng = core(residual_network(), lanes=1), np.random.default_rng(3)
    runs = [tuple(rng.integers(1, 33, 2)) for _ in range(2000)]
    after = {}
    for i, (height, width) in enumerate(runs):
        engine.run([image(rng, 3, height, width)])
        after[i + 1] = resident() if i + 1 in (200, 2000) else 0
    # What is kept of a size is about 30 kB at least, and there were 700 new ones.
    assert after[2000] - after[200] < 8 << 20


@pytest.mark.extensive  # at length what test_plans_are_bounded shows
@pytest.mark.skipif(not PLAIN_LINUX, reason="looks at the memory of a process")
def test_ten_thousand_runs(tmp_path: Path) -> None:
    """If this fails, a server that lives for days grows by a little with every run, at whatever
    size, batch and number of threads."""
    engine, rng = engine_of(residual_network(), tmp_path, threads=2), np.random.default_rng(9)
    after = {}
    for i in range(10_000):
        height, width, batch = (int(n) for n in rng.integers(1, 33, 3))
        engine.run(image(rng, 3, height, width, batch))
        after[i + 1] = resident() if i + 1 in (2000, 10_000) else 0
    print(
        f"resident: {after[2000] >> 10} kB after 2,000 runs, {after[10_000] >> 10} kB after 10,000"
    )
    assert after[10_000] - after[2000] < 2 << 20


def test_threads_at_changing_sizes() -> None:
    """If this fails, two requests of different sizes share what only one of them may have: the plan
    that another thread has pushed out, or a workspace of another size."""
    engine = core(u_net())
    rng = np.random.default_rng(4)
    cases = []
    for height, width in ((4, 4), *sizes(rng, 4, 19)):  # more than are kept
        x = image(rng, 3, height, width)
        cases.append((x, engine.run([x])))
    wrong: list[str] = []

    def work(number: int) -> None:
        order = np.random.default_rng(number).permutation(np.tile(np.arange(len(cases)), 5))
        for i in order:
            x, wanted = cases[i]
            found = engine.run([x])
            if any(a.tobytes() != b.tobytes() for a, b in zip(found, wanted, strict=True)):
                wrong.append(str(x.shape))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_size_outlives_its_engine() -> None:
    """If this fails, the engine of a size reads weights that went with the file's engine, or with
    the sizes that pushed it out."""
    engine, rng = core(u_net()), np.random.default_rng(5)
    x = image(rng, 3, 12, 20)
    wanted = engine.run([x])
    sized = engine.at(12, 20)
    for side in range(4, 60, 4):
        engine.at(side, side)
    del engine
    check_close(sized.run([x]), wanted, "12x20")


def test_pickled(tmp_path: Path) -> None:
    """If this fails, a process that is handed an engine knows the example's size alone."""
    engine, rng = engine_of(u_net(), tmp_path), np.random.default_rng(6)
    x = image(rng, 3, 20, 8)
    copy = pickle.loads(pickle.dumps(engine))
    assert copy.free_sizes == ("height", "width")
    check_close(list(copy.run(x)), list(engine.run(x)), "pickled")


def test_the_plan_of_the_file_serves_other_sizes(tmp_path: Path) -> None:
    """If this fails, a tuned plan is refused, or computes something else, at another size."""
    engine, rng = engine_of(u_net(), tmp_path), np.random.default_rng(7)
    planned = Engine(tmp_path / "model.safetensors", plan=engine.plan)
    for height, width in sizes(rng, 4, 4):
        x = image(rng, 3, height, width)
        check_close(list(planned.run(x)), list(engine.run_reference(x)), f"{height}x{width}")


@pytest.mark.parametrize("precision", ["fast", "half"])
def test_other_sizes_on_cuda(precision: str, tmp_path: Path) -> None:
    """If this fails, the CUDA device computes another size with the plan of the example's."""
    engine = engine_of(plain(), tmp_path, device="cuda-emulated", precision=precision)
    rng = np.random.default_rng(8)
    kind = np.float16 if precision == "half" else np.float32
    for height, width in ((16, 24), (6, 10), (20, 4)):
        x = image(rng, 3, height, width, batch=2).astype(kind)
        wanted = core(plain()).run_reference([x.astype(np.float32)])
        for got, want in zip(engine.run(x), wanted, strict=True):
            assert got.dtype == kind and got.shape == want.shape
            error = np.linalg.norm(got - want) / np.linalg.norm(want)
            assert error <= (1e-2 if precision == "half" else 1e-5), f"{height}x{width}"
