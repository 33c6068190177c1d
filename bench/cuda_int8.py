"""What the CUDA kernels of bytes take of a multiprocessor, and what their main loops consist of;
needs nvcc and nvdisasm, no GPU.

python -m bench.cuda_int8      writes bench/results/cuda-int8.json and its table in docs/GPU.md
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from typing import Any

from bench.cuda_resources import (
    DOCUMENT,
    ROOT,
    compiler_version,
    parse as parse_resources,
    readable,
)
from bench.cuda_sass import Listing, find_nvdisasm, parse, write_table
from kernelprune.errors import Error
from kernelprune.files import write_text

RESULT = ROOT / "bench" / "results" / "cuda-int8.json"
SOURCE = "csrc/cuda/kernels/table_gpu_int8.cu"
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90")
LISTED = "sm_80"  # whose instructions are counted
TABLE_HEAD = f"| loop of bytes, {LISTED} "
KINDS = {
    "dot_products": r"IDP",
    "permutes": r"PRMT",
    "shared_loads": r"LDS(?!M|T)",
    "global_loads": r"LDG\b",
    "branches": r"BRA|BSSY|BSYNC|BREAK|EXIT|CALL|WARPSYNC|NOP",
}


def compiled(architecture: str, folder: str) -> tuple[str, str]:
    """The cubin, and what ptxas says of it; warnings, spills among them, are errors."""
    cubin = f"{folder}/{architecture}.cubin"
    command = [
        *("nvcc", "-std=c++17", "-O3", "-Icsrc", "-Icsrc/include", "-arch", architecture),
        *("-Xptxas", "-v,--warn-on-spills", "-Werror=all-warnings", "-cubin", SOURCE, "-o", cubin),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        raise Error(f"nvcc failed: {done.stderr.strip()}")
    return cubin, done.stdout + done.stderr


def main_loop(listing: Listing) -> dict[str, int]:
    """The smallest loop with the most dot products: how many instructions of each kind."""
    opcodes = [i.opcode for i in listing.instructions]
    best: list[str] = []
    for at in range(len(opcodes)):
        start = listing.target(at)
        body = [] if start is None else opcodes[start : at + 1]
        products = sum(o.startswith("IDP") for o in body)
        most = sum(o.startswith("IDP") for o in best)
        if products > most or (products == most > 0 and len(body) < len(best)):
            best = body
    counts = {
        kind: sum(bool(re.match(pattern, opcode)) for opcode in best)
        for kind, pattern in KINDS.items()
    }
    return counts | {"others": len(best) - sum(counts.values())}


def document_table(loops: dict[str, dict[str, int]]) -> str:
    """The main loops, as the table of docs/GPU.md."""
    names = [*KINDS, "others"]
    lines = [
        f"{TABLE_HEAD}| {' | '.join(name.replace('_', ' ') for name in names)} |",
        "|---" * (1 + len(names)) + "|",
    ]
    lines += [
        f"| `{kernel}` | {' | '.join(str(loop[name]) for name in names)} |"
        for kernel, loop in loops.items()
    ]
    return "\n".join(lines) + "\n"


def collect(nvdisasm: str) -> dict[str, Any]:
    """By architecture the registers of each kernel; of one of them the main loops.

    Raises:
        Error: A tool fails, or a kernel spills.
    """
    found: dict[str, Any] = {"registers": {}, "main_loops": {}}
    with tempfile.TemporaryDirectory() as folder:
        for architecture in ARCHITECTURES:
            cubin, report = compiled(architecture, folder)
            found["registers"][architecture] = {
                kernel: use["registers"] for kernel, use in parse_resources(report).items()
            }
            if architecture != LISTED:
                continue
            done = subprocess.run([nvdisasm, "--print-code", cubin], capture_output=True, text=True)
            if done.returncode != 0:
                raise Error(f"nvdisasm failed: {done.stderr.strip()}")
            kernels = {readable(symbol): x for symbol, x in parse(done.stdout).items()}
            found["main_loops"] = {
                name: main_loop(listing)
                for name, listing in sorted(kernels.items())
                if name.startswith(("ConvInt8", "LinearInt8"))
            }
    return found


def main() -> None:
    nvdisasm = find_nvdisasm()
    if nvdisasm is None:
        sys.exit("error: nvdisasm not found: pip install nvidia-cuda-nvdisasm")
    try:
        found = {"nvcc": compiler_version()} | collect(nvdisasm)
    except (FileNotFoundError, Error) as error:
        sys.exit(f"error: {error}")
    write_text(RESULT, json.dumps(found, indent=1) + "\n")
    table = document_table(found["main_loops"])
    write_text(DOCUMENT, write_table(DOCUMENT.read_text(), table, TABLE_HEAD))
    print(table, end="")


if __name__ == "__main__":
    main()
