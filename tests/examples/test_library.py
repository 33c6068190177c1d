"""The library for C++ and C: installed from the objects that are there, used by the examples."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from build_folder import ROOT, build_folder, build_target, cache_entry
from torch import nn

import kernelprune as kp


def call(*command: str | Path, **more) -> subprocess.CompletedProcess:
    environment = {key: text for key, text in os.environ.items() if key != "LD_PRELOAD"}
    return subprocess.run([*map(str, command)], capture_output=True, env=environment, **more)


def checked(*command: str | Path) -> None:
    done = call(*command)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()[-4000:]


@pytest.fixture(scope="module")
def cmake() -> str:
    if cache_entry("KERNELPRUNE_SANITIZE"):
        pytest.skip("the programs of users are not sanitized")
    return cache_entry("CMAKE_COMMAND")


@pytest.fixture(scope="module")
def installed(cmake: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix of an installation."""
    prefix = tmp_path_factory.mktemp("installed")
    build_target("kernelprune")
    checked(cmake, "--install", build_folder(), "--prefix", prefix, "--component", "library")
    return prefix


@pytest.fixture(scope="module")
def programs(cmake: str, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both examples, built as their users would."""
    folder = tmp_path_factory.mktemp("programs")
    ninja = f"-DCMAKE_MAKE_PROGRAM={cache_entry('CMAKE_MAKE_PROGRAM')}"
    for name in ("cpp", "c"):
        source, build = ROOT / "examples" / name, folder / name
        prefix = f"-DCMAKE_PREFIX_PATH={installed}"
        checked(cmake, "-G", "Ninja", ninja, "-S", source, "-B", build, prefix)
        checked(cmake, "--build", build)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file whose sides are free."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 7, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    kp.export(network.eval(), torch.randn(1, 3, 9, 12), path, dynamic=("height", "width"))
    return path


@pytest.mark.parametrize("side", [(9, 12), (11, 10)])
def test_cpp_example(programs: Path, model: Path, tmp_path: Path, side: tuple[int, int]) -> None:
    """If this fails, C++ programs cannot link the library, or get other numbers than Python."""
    pixels = np.random.default_rng(0).integers(0, 256, (*side, 3), np.uint8)
    photo = tmp_path / "photo.ppm"
    photo.write_bytes(b"P6 # a comment\n%d %d\n255\n" % (side[1], side[0]) + pixels.tobytes())
    done = call(programs / "cpp" / "classify", model, photo)
    assert done.returncode == 0, done.stderr
    scores = kp.Engine(model).run(np.float32(pixels.transpose(2, 0, 1)[None]) / np.float32(255))
    best = np.argsort(-scores[0])[:5]
    assert done.stdout.decode() == "".join(f"{i:5d}  {scores[0, i]:.6g}\n" for i in best)


def test_cpp_example_errors(programs: Path, model: Path, tmp_path: Path) -> None:
    """If this fails, a wrong file ends a C++ program in a crash in place of a message."""
    photo = tmp_path / "photo.ppm"
    photo.write_bytes(b"P6 4 4 255\n" + bytes(10))
    assert b"ends early" in call(programs / "cpp" / "classify", model, photo).stderr
    photo.write_bytes(b"P6 4 4 255\n" + bytes(48))
    done = call(programs / "cpp" / "classify", photo, photo)
    assert (done.returncode, done.stdout) == (1, b"") and b"photo.ppm" in done.stderr


def test_c_example(programs: Path, model: Path) -> None:
    """If this fails, C programs cannot link the library, or get other numbers than Python."""
    x = np.random.default_rng(1).standard_normal((5, 3, 9, 12), np.float32)
    done = call(programs / "c" / "run", model, "5", input=x.tobytes())
    assert done.returncode == 0, done.stderr
    assert done.stdout == kp.Engine(model).run(x).tobytes()
    done = call(programs / "c" / "run", model, "6", input=x.tobytes())
    assert (done.returncode, done.stdout) == (1, b"") and b"fewer numbers" in done.stderr


def test_part_of_another_project(cmake: str, tmp_path: Path) -> None:
    """If this fails, add_subdirectory and FetchContent do not work, or ask for Python."""
    (tmp_path / "app.cc").write_text("int main() {}\n")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18...4.0)\nproject(app CXX)\n"
        f'add_subdirectory("{ROOT}" kernelprune)\nadd_executable(app app.cc)\n'
        "target_link_libraries(app PRIVATE kernelprune::kernelprune)\n"
        "if(TARGET _core)\n  message(FATAL_ERROR Python)\nendif()\n"
    )
    options = [
        f"-D{name}={cache_entry(name)}"
        for name in ("CMAKE_MAKE_PROGRAM", "KERNELPRUNE_JSON_INCLUDE")
    ]
    off = "-DKERNELPRUNE_CUDA=off"
    checked(cmake, "-G", "Ninja", *options, off, "-S", tmp_path, "-B", tmp_path / "build")


# --- the C API itself, through ctypes ------------------------------------------------------------


class Tensor(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 4),
        ("is_free", ctypes.c_int32 * 4),
    ]


@pytest.fixture(scope="module")
def library(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The same objects as a shared library, as BUILD_SHARED_LIBS makes it."""
    (archive,) = installed.glob("lib*/libkernelprune.a")
    shared = tmp_path_factory.mktemp("shared") / "libkernelprune.so"
    archives = ("-Wl,--whole-archive", archive, "-Wl,--no-whole-archive")
    extra = [p for p in (cache_entry_or("CUDA_cudart_static_LIBRARY"),) if p]
    checked(
        cache_entry("CMAKE_CXX_COMPILER"), "-shared", "-o", shared, *archives, *extra,
        "-pthread", "-ldl", "-lrt",
    )  # fmt: skip
    found = ctypes.CDLL(str(shared))
    for name in ("kernelprune_version", "kernelprune_last_error", "kernelprune_isa"):
        getattr(found, name).restype = ctypes.c_char_p
    found.kernelprune_isa.argtypes = found.kernelprune_free.argtypes = [ctypes.c_void_p]
    return found


def cache_entry_or(name: str) -> str:
    """What the build was configured with, "" for what it does not know."""
    try:
        return cache_entry(name)
    except AssertionError:
        return ""


def load(library: ctypes.CDLL, model: Path) -> ctypes.c_void_p:
    engine = ctypes.c_void_p()
    status = library.kernelprune_load(str(model).encode(), None, ctypes.byref(engine))
    assert status == 0, library.kernelprune_last_error()
    return engine


def pointers(*arrays: np.ndarray):
    kind = ctypes.c_void_p * len(arrays)
    return kind(*(array.ctypes.data for array in arrays))


def test_c_api_of_free_sizes(library: ctypes.CDLL, model: Path) -> None:
    """If this fails, a resized engine describes or computes another size, or needs its parent."""
    engine, resized = load(library, model), ctypes.c_void_p()
    assert library.kernelprune_resized(
        engine, ctypes.c_int64(14), ctypes.c_int64(6), ctypes.byref(resized)
    ) == 0  # fmt: skip
    library.kernelprune_free(engine)
    tensor = Tensor(size=ctypes.sizeof(Tensor))
    assert library.kernelprune_input(resized, 0, ctypes.byref(tensor)) == 0
    assert list(tensor.shape)[: tensor.rank] == [3, 14, 6]
    x = np.random.default_rng(2).standard_normal((3, 3, 14, 6), np.float32)
    out = np.empty((3, 7), np.float32)
    assert library.kernelprune_run(resized, pointers(x), pointers(out), ctypes.c_int64(3)) == 0
    assert (out == kp.Engine(model).run(x)).all()
    assert library.kernelprune_isa(resized).decode() == kp.Engine(model).isa
    library.kernelprune_free(resized)


def test_c_api_errors(library: ctypes.CDLL, model: Path, tmp_path: Path) -> None:
    """If this fails, a C program crashes on bad input, or cannot tell what was wrong with it."""
    engine, other = load(library, model), ctypes.c_void_p()
    (tmp_path / "not.safetensors").write_bytes(b"no model")
    for path, status in (("not.safetensors", 2), ("missing", 1)):
        name = str(tmp_path / path).encode()
        assert library.kernelprune_load(name, None, ctypes.byref(other)) == status
        assert name in library.kernelprune_last_error() and other.value is None
    sides = ctypes.c_int64(1), ctypes.c_int64(1)
    assert library.kernelprune_resized(engine, *sides, ctypes.byref(other)) == 3
    tensor = Tensor(size=8)
    assert library.kernelprune_input(engine, 0, ctypes.byref(tensor)) == 1
    tensor.size = ctypes.sizeof(Tensor)
    assert library.kernelprune_output(engine, 1, ctypes.byref(tensor)) == 1
    assert library.kernelprune_run(engine, None, None, ctypes.c_int64(1)) == 1
    assert library.kernelprune_run(engine, pointers(), pointers(), ctypes.c_int64(-1)) == 1
    library.kernelprune_free(engine)
    library.kernelprune_free(None)


def test_what_the_library_shows(library: ctypes.CDLL) -> None:
    """If this fails, names of the engine's inside meet names of the program, or the C API is
    hidden."""
    listed = call("nm", "-D", "--defined-only", "--demangle", library._name).stdout.decode()
    names = [line.split(" ", 2)[2] for line in listed.splitlines()]
    assert sum(name.startswith("kernelprune_") for name in names) == 12
    ours = {n.split("(")[0].split("[")[0] for n in names if n.startswith("kernelprune::")}
    public = ("Engine", "Error", "Convolution", "WeightGradient")
    functions = {
        "available_isas", "select_isa", "plan_of", "candidates_of", "register_device",
        "available_int8_isas", "measure_fma_peak",
    }  # fmt: skip
    rest = {n.removeprefix("kernelprune::") for n in ours}
    assert {n for n in rest if n.split("::")[0] not in public} == functions
