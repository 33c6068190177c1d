"""What the CUDA kernels take of a multiprocessor, as ptxas reports it; needs nvcc, no GPU.

python -m bench.cuda_resources      writes bench/results/cuda-resources.json
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from kernelprune.errors import Error
from kernelprune.files import write_text

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "cuda-resources.json"
DOCUMENT = ROOT / "docs" / "GPU.md"
SOURCES = tuple(f"csrc/cuda/kernels/table_gpu{part}.cu" for part in ("", "_half", "_ops"))
ARCHITECTURES = ("sm_80", "sm_90")

# Per multiprocessor, both architectures: registers, and threads by compute capability.
REGISTERS = 65536
THREADS = 2048


def compiler_version() -> str:
    text = subprocess.run(["nvcc", "--version"], check=True, capture_output=True, text=True).stdout
    return re.findall(r"release [\d.]+, (V[\d.]+)", text)[0]


def compile_report(architecture: str) -> str:
    """The messages of ptxas about every kernel; warnings are errors."""
    messages = ""
    with tempfile.TemporaryDirectory() as folder:
        for source in SOURCES:
            command = [
                *("nvcc", "-std=c++17", "-O3", "-Icsrc", "-Icsrc/include", "-arch", architecture),
                *("-Xptxas", "-v", "-Werror=all-warnings", "-c", source),
                *("-o", f"{folder}/table.o"),
            ]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if done.returncode != 0:
                raise Error(f"nvcc failed: {done.stderr.strip()}")
            messages += done.stdout + done.stderr
    return messages


def readable(symbol: str) -> str:
    """``_ZN...entryINS_10ConvDirectILi3ELi1E...`` -> ``ConvDirect<3, 1, ...>``."""
    done = subprocess.run(["c++filt", symbol], check=True, capture_output=True, text=True)
    inner = re.findall(r"entry<(.*)>\(", done.stdout)[0]
    inner = re.sub(r"\([^()]*(?:\(anonymous namespace\))?[^()]*\)(?=-?\d)", "", inner)
    return re.sub(r"kernelprune::cuda::(\(anonymous namespace\)::)?", "", inner).strip()


def parse(report: str) -> dict[str, dict[str, int]]:
    """Kernel -> its registers, spills and the threads that fit."""
    kernels = {}
    parts = re.split(r"Compiling entry function '(\w+)'", report)
    for symbol, text in zip(parts[1::2], parts[2::2], strict=True):

        def number(pattern: str, text: str = text) -> int:
            found = re.findall(pattern, text)
            return int(found[0]) if found else 0

        registers = number(r"Used (\d+) registers")
        kernels[readable(symbol)] = {
            "registers": registers,
            "threads_by_registers": min(THREADS, REGISTERS // (32 * -(-registers // 8) * 8) * 32),
            "stack_bytes": number(r"(\d+) bytes stack frame"),
            "spill_bytes": number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
            "static_shared_bytes": number(r"(\d+) bytes smem"),
        }
    return dict(sorted(kernels.items()))


def document_table(tables: dict[str, dict[str, dict[str, int]]]) -> str:
    """Registers of the kernels that compute convolutions, as the table of docs/GPU.md."""
    lines = [f"| kernel | {' | '.join(ARCHITECTURES)} |", "|---" * (1 + len(ARCHITECTURES)) + "|"]
    for kernel in tables[ARCHITECTURES[0]]:
        if kernel.startswith(("Conv", "Linear")):
            registers = [str(tables[name][kernel]["registers"]) for name in ARCHITECTURES]
            lines.append(f"| `{kernel}` | {' | '.join(registers)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    try:
        version = compiler_version()
        tables = {name: parse(compile_report(name)) for name in ARCHITECTURES}
    except (FileNotFoundError, Error) as error:
        sys.exit(f"error: {error}")
    write_text(RESULT, json.dumps({"nvcc": version, "kernels": tables}, indent=1) + "\n")
    text = DOCUMENT.read_text()
    write_text(DOCUMENT, text[: text.index("| kernel | sm_80")] + document_table(tables))
    for name, kernels in tables.items():
        for kernel, use in kernels.items():
            print(f"{name} {kernel:<40}", *(f"{key} {value}" for key, value in use.items()))


if __name__ == "__main__":
    main()
