"""Compiles the CUDA kernels with the compiler library of another CUDA than that of nvcc; no GPU.

    pip install nvidia-cuda-nvrtc-cu12
    python -m bench.cuda_nvrtc [--nvrtc libnvrtc.so.12]     writes bench/results/cuda-nvrtc.json

There is no nvcc 12 among the packages of PyPI, but its compiler is there as a library, which
compiles what runs on the device. The launches, which only nvcc compiles, are left out.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from bench.cuda_resources import RESULT as RESOURCES, ROOT, parse
from bench.results import RESULTS
from kernelprune.errors import Error
from kernelprune.files import write_text

RESULT = RESULTS / "cuda-nvrtc.json"
PACKAGE = "nvidia-cuda-nvrtc-cu12"
ARCHITECTURES = ("sm_75", "sm_90")
# What kernels include of the standard library, which nvrtc does not have.
HEADERS = {
    "cstdint": """#pragma once
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t;
""",
}
# The kernels as in csrc/cuda/kernels/table_gpu.cu, with an empty launch.
SOURCE = """#include "cuda/device/device_half.cuh"
#include "cuda/kernels/op_kernels.h"
#define HUGE_VALF __int_as_float(0x7f800000)
namespace kernelprune::cuda {{
namespace {{
#include "cuda/kernels/{table}.cuh"
template <class K>
__global__ void __launch_bounds__(K::kThreads, K::kBlocksPerProcessor)
    entry(const __grid_constant__ Args args) {{
  K::run(args);
}}
template <class K>
void launch(const LaunchShape&, const Args&, void*) {{}}
}}
}}
using namespace kernelprune::cuda;
"""
# Headers of the host declare the tables of the other targets.
IGNORED = 20044


def find_nvrtc() -> Path:
    """The library of the installed package. Raises Error."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise Error(f"pip install {PACKAGE}, or name the library with --nvrtc") from None
    return next(Path(str(f.locate())) for f in files if f.match("lib/libnvrtc.so.*"))


class Nvrtc:
    """The few functions of nvrtc that are needed. Failures raise Error."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        if status != 0:
            raise Error(f"{name} failed with {status}")

    def compile(self, source: str, kernels: list[str], architecture: str) -> str:
        """The messages of the compiler and of ptxas about ``entry<kernel>`` for every kernel."""
        program = ctypes.c_void_p()
        texts = (ctypes.c_char_p * len(HEADERS))(*(text.encode() for text in HEADERS.values()))
        names = (ctypes.c_char_p * len(HEADERS))(*(name.encode() for name in HEADERS))
        self._call(
            "nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"table.cu",
            len(HEADERS), texts, names,
        )  # fmt: skip
        for kernel in kernels:
            self._call("nvrtcAddNameExpression", program, f"entry<{kernel}>".encode())
        options = [
            f"--gpu-architecture={architecture}", "-std=c++17", "-default-device",
            f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}", "--ptxas-options=-v",
            f"-diag-suppress={IGNORED}",
        ]  # fmt: skip
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = self.library.nvrtcCompileProgram(program, len(options), given)
        size = ctypes.c_size_t()
        self._call("nvrtcGetProgramLogSize", program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        self._call("nvrtcGetProgramLog", program, log)
        self._call("nvrtcDestroyProgram", ctypes.byref(program))
        messages = log.value.decode()
        if failed or "warning" in messages:
            raise Error(f"nvrtc: {messages[:2000]}")
        return messages


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cuda_nvrtc", description=__doc__)
    parser.add_argument("--nvrtc", type=Path, help="the library, if the package is not installed")
    options = parser.parse_args()
    nvrtc = Nvrtc(options.nvrtc or find_nvrtc())
    known = list(json.loads(RESOURCES.read_text())["kernels"]["sm_90"])
    tables: dict[str, list[str]] = {"kernels": [], "kernels_half": [], "kernels_ops": []}
    for kernel in known:
        of_convolution = kernel.startswith(("Conv", "Linear"))
        storage = "kernels_half" if "Half" in kernel else "kernels"
        tables[storage if of_convolution else "kernels_ops"].append(kernel)
    result: dict[str, Any] = {"nvrtc": nvrtc.version, "kernels": {}}
    for architecture in ARCHITECTURES:
        found: dict[str, dict[str, int]] = {}
        for table, kernels in tables.items():
            found |= parse(nvrtc.compile(SOURCE.format(table=table), kernels, architecture))
        result["kernels"][architecture] = dict(sorted(found.items()))
        spilled = sum(use["spill_bytes"] > 0 for use in found.values())
        print(f"nvrtc {nvrtc.version}, {architecture}: {len(found)} kernels, {spilled} spill")
    write_text(RESULT, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
