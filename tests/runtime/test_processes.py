"""Engines among processes, threads and signals: forks, exits, Ctrl-C. Everything here runs in
processes of its own, which are killed if they hang."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder

SAME = (1, 1, 1, 1)
SHAPE = (3, 19, 13)

PROGRAM = """
import ctypes, os, signal, sys, threading, time
import numpy as np
from kernelprune.runtime import Engine
path = sys.argv[1]
engine = Engine(path, threads=2)
x = np.random.default_rng(1).standard_normal((19, {shape})).astype(np.float32)
expected = Engine(path).run(x)
right = lambda engine=engine: np.array_equal(engine.run(x), expected)
def in_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that waits for ever ends with it
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]
""".replace("{shape}", ", ".join(map(str, SHAPE)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    b = GraphBuilder(np.random.default_rng(0))
    a = b.conv2d(b.input(SHAPE), 9, padding=SAME, activation="relu")
    c = b.conv2d(a, 9, padding=SAME, density=0.4, residual=a)
    path = tmp_path_factory.mktemp("processes") / "model.safetensors"
    path.write_bytes(b.file(b.conv2d(c, 5, stride=(2, 2), padding=SAME, density=0.5)))
    return path


def start(model: Path, body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM + body, str(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    try:
        output, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        pytest.fail(f"still running after a minute: {output}\n{errors}")
    return output, errors, process.returncode


def check(model: Path, body: str) -> None:
    output, errors, code = finish(start(model, body))
    assert code == 0, f"exit status {code}: {output}\n{errors}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_children_at_any_depth(model: Path) -> None:
    """A worker of a data loader that waits for threads of its parent hangs for ever: the parent has
    used its engine, or uses it in another thread while it forks; the child makes engines, forks
    again, and uses several threads."""
    check(
        model,
        """
def several():
    wrong = []
    def work():
        for _ in range(3):
            if not (right() and right(Engine(path, threads=3))):
                wrong.append(1)
    callers = [threading.Thread(target=work) for _ in range(4)]
    [c.start() for c in callers]
    [c.join() for c in callers]
    return not wrong
assert in_child(right) == 0  # a parent that has run nothing
assert right()
assert in_child(lambda: right() and right(Engine(path, threads=3)) and several()) == 0
assert in_child(lambda: right() and in_child(lambda: right() and in_child(right) == 0) == 0) == 0
assert in_child(lambda: in_child(right) == 0 and right()) == 0
stop = []
busy = [threading.Thread(target=lambda: [engine.run(x) for _ in iter(lambda: bool(stop), True)])
        for _ in range(2)]
[b.start() for b in busy]
codes = [in_child(lambda: right() and in_child(right) == 0) for _ in range(10)]
stop.append(1)
[b.join() for b in busy]
assert codes == [0] * 10, codes
assert right()
""",
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_a_process_that_used_openmp(model: Path) -> None:
    """OpenMP's threads are those of the whole process: were the engine's work done by them, a child
    of a process whose numerical library has used them would hang."""
    check(
        model,
        """
try:
    gomp = ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
except OSError:
    sys.exit(0)
body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
before = len(os.listdir("/proc/self/task"))
gomp.GOMP_parallel(ctypes.cast(body, ctypes.c_void_p), None, 2, 0)
assert len(os.listdir("/proc/self/task")) > before
assert in_child(lambda: right() and right(Engine(path, threads=2))) == 0
assert "gomp" not in os.popen("ldd " + sys.modules["kernelprune._core"].__file__).read()
""",
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_exit_while_daemon_threads_run(model: Path, threads: int) -> None:
    """Python ends daemon threads by unwinding their stacks, and a process that does so through the
    engine's frames aborts in place of exiting with its own status."""
    body = f"""
engine = Engine(path, threads={threads})
def work(images):
    while True:
        engine.run(images)
for images in (x[:1], x, np.repeat(x, 20, axis=0)):
    threading.Thread(target=work, args=(images,), daemon=True).start()
time.sleep(0.02)
sys.exit(7)
"""
    for process in [start(model, body) for _ in range(4)]:
        output, errors, code = finish(process)
        assert (output, errors, code) == ("", "", 7)


def test_exit_with_daemon_threads_that_do_not_run(model: Path) -> None:
    """Those that once used an engine and now wait must not keep a process from ending, and the main
    thread may use engines to the very end."""
    check(
        model,
        """
import atexit
used = threading.Event()
def work():
    engine.run(x)
    used.set()
    time.sleep(100)
atexit.register(lambda: os._exit(0 if right() else 3))  # runs behind what was registered later
class Late:
    def __del__(self):
        right()
late = Late()
threading.Thread(target=work, daemon=True).start()
used.wait()
""",
    )


RUNS = {
    "one thread": "one.run(many)",
    "two threads": "two.run(many)",
    "one image": "Engine(slow, lanes=1).run(many)",
    "reference": "one.run_reference(many)",
    "profile": "one.profile(many[:2], repeats=1_000_000)",
    "tune": "kernelprune.runtime.tune(slow, seconds=1000.0)",
    "peak": "kernelprune.runtime.fma_peak(seconds=1e6)",
}


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
def test_ctrl_c_ends_a_long_run(model: Path, tmp_path: Path) -> None:
    """A run of minutes that cannot be interrupted must be killed, and what was not saved is lost.
    Each of these takes longer than the test may; the engine is to be usable afterwards."""
    b = GraphBuilder(np.random.default_rng(0))
    wide = b.conv2d(b.input((1, 8, 8)), 256, padding=SAME)
    slow = tmp_path / "slow.safetensors"
    slow.write_bytes(b.file(b.conv2d(b.conv2d(wide, 256, padding=SAME), 1, padding=SAME)))
    body = f"""
import kernelprune.runtime
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
slow = {str(slow)!r}
one, two = Engine(slow, precision="strict"), Engine(slow, threads=2, precision="strict")
many = np.ones((1 << 18, 1, 8, 8), np.float32)
few = one.run(many[:19])
for name, run in [{", ".join(f"({name!r}, lambda: {run})" for name, run in RUNS.items())}]:
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        run()
    except KeyboardInterrupt:
        print(name, flush=True)
    timer.join()
    assert np.array_equal(one.run(many[:19]), few) and np.array_equal(two.run(many[:19]), few)
"""
    output, errors, code = finish(start(model, body))
    assert (output.splitlines(), code) == (list(RUNS), 0), errors


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
def test_handlers_that_raise_nothing_change_nothing(model: Path) -> None:
    """A handler that only notes a signal is called within a run, whose result must be whole."""
    check(
        model,
        """
many = np.repeat(x, 400, axis=0)
want = engine.run(many)
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(right()))
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
while len(seen) < 3:
    assert np.array_equal(engine.run(many), want)
signal.setitimer(signal.ITIMER_REAL, 0)
assert all(seen)
""",
    )


def test_subnormal_numbers_are_the_callers_choice(model: Path) -> None:
    """Whether a processor flushes them to zero is set for each thread: with workers that have it
    otherwise than their caller, results would depend on the number of threads."""
    check(
        model,
        """
import ctypes.util
libm = ctypes.CDLL(ctypes.util.find_library("m"))
tiny = x * np.float32(1e-39)
engines = [Engine(path, threads=threads, lanes=1) for threads in (1, 2, 3)]
def same():
    alone, *others = (engine.run(tiny) for engine in engines)
    return all(np.array_equal(alone, other) for other in others)
assert same()
FE_UPWARD = 0x800 if os.uname().machine == "x86_64" else 0x400000
assert libm.fesetround(FE_UPWARD) == 0
rounded = engines[0].run(x)
assert not np.array_equal(rounded, expected)
assert np.array_equal(engines[1].run(x), engines[0].run(x)) and same()
""",
    )
