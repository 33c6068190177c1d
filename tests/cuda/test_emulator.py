"""The emulator finds the faults that it is there for: otherwise "the kernels pass in the emulator"
says nothing about a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder

ROOT = Path(__file__).resolve().parent.parent.parent

FAULTS = {
    "reads_past_the_end": "thread 63: global read at 64 of 64",
    "reads_before_the_start": "thread 0: global read at -1 of 64",
    "writes_past_the_end": "thread 63: global write at 64 of 64",
    "writes_twice": "thread 1: second write at 0 of 64",
    "writes_too_little": "output 63 of 64 is not written",
    "reads_what_nobody_wrote": "computed from memory that is not",
    "reads_unaligned": "global read, not aligned",
    "shared_past_the_end": "thread 63: shared write at 64 of 64",
    "shared_never_written": "thread 0: shared read at 0: nobody has written it",
    "shared_without_barrier": "shared read at 0: thread 0 wrote it since the last barrier",
    "shared_overwritten_too_soon": "another thread has read it since the last barrier",
    "two_write_one_place": "shared write at 0: thread 0 wrote it since the last barrier",
    "reads_a_copy_too_soon": "a copy into it is under way",
    "forgets_the_barrier_after_a_copy": "thread 0 wrote it since the last barrier",
    "forgets_to_wait": "ends with copies it has not waited for",
    "barrier_for_some": "thread 0 waits at the barrier of line",
    "two_barriers": "thread 0 waits at the barrier of line",
    "shuffle_of_half_a_warp": "thread 0 waits at the shuffle of line",
    "product_of_half_a_warp": "thread 0 waits at the work of the whole warp of line",
    "product_of_what_is_no_tf32": "has not been rounded to TF32",
    "reads_halves_unaligned": "global read, not aligned",
}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """What the emulator says about every faulty kernel, in order."""
    program = tmp_path_factory.mktemp("emulator") / "faulty_kernels"
    compiler = os.environ.get("CXX") or shutil.which("c++") or "g++"
    sources = [
        "tests/cuda/faulty_kernels.cc",
        "csrc/cuda/emulator/emulator.cc",
        "csrc/cuda/emulator/fiber.cc",
    ]
    options = ["-std=c++17", "-O1", "-Icsrc", "-Icsrc/include", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *options, *sources, "-o", str(program)], check=True, cwd=ROOT)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    lines = [line.partition(": ") for line in output.splitlines()]
    return [(name, message) for name, _, message in lines]


def test_a_right_kernel_passes(verdicts: list[tuple[str, str]]) -> None:
    """Barriers, shuffles and copies must compute what they would on a GPU, also after an error."""
    assert [m for name, m in verdicts if name == "nothing_wrong"] == ["right", "right"]


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(verdicts: list[tuple[str, str]], fault: str) -> None:
    """A kernel with this fault would pass all tests here and fail on a GPU, or now and then."""
    message = dict(verdicts)[fault]
    assert f"emulated kernel {fault}" in message
    assert FAULTS[fault] in message


def test_every_faulty_kernel_is_expected(verdicts: list[tuple[str, str]]) -> None:
    """A fault without an expected message would be tested by nobody."""
    assert {name for name, _ in verdicts} == {"nothing_wrong", *FAULTS}


def test_an_engine_without_the_emulator_says_so(tmp_path: Path) -> None:
    """If this fails, the emulator has come back into the library, or whoever asks for it there is
    told that there is no such device."""
    b = GraphBuilder(np.random.default_rng(0))
    (tmp_path / "model").write_bytes(b.file(b.conv2d(b.input((2, 4, 4)), 3)))
    program = f"""
import kernelprune as kp
try:
    kp.Engine({str(tmp_path / "model")!r}, device="cuda-emulated")
except kp.DeviceError as error:
    print(error)
import kernelprune._emulator
print(kp.Engine({str(tmp_path / "model")!r}, device="cuda-emulated").isa)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refusal, name = done.stdout.splitlines()
    assert "import kernelprune._emulator first" in refusal
    assert name == "cuda-emulated"
