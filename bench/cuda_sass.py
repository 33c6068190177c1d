"""What the main loops of the CUDA kernels consist of, as nvdisasm shows them; needs nvcc, no GPU.

python -m bench.cuda_sass      writes bench/results/cuda-sass.json and its table in docs/GPU.md

nvdisasm comes with CUDA, or alone: pip install nvidia-cuda-nvdisasm.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.cuda_resources import ARCHITECTURES, DOCUMENT, ROOT, SOURCES, compiler_version, readable
from kernelprune.errors import Error
from kernelprune.files import write_text

RESULT = ROOT / "bench" / "results" / "cuda-sass.json"
TABLE_HEAD = "| main loop, sm_80 "

# Connections of a patch by density, for groups of 4 and 8 output channels with random connections.
DENSITIES = (1.0, 0.3, 0.1)

KINDS = {
    "multiply_adds": r"FFMA",
    "shared_loads": r"LDS(?!M|T)",
    "global_loads": r"LDG\b",
    "branches": r"BRA|BSSY|BSYNC|BREAK|EXIT|CALL|WARPSYNC|NOP",
    "float_other": r"FADD|FMUL|FSEL|FSETP|FMNMX",
}


@dataclass(frozen=True)
class Instruction:
    predicate: str
    opcode: str
    operands: str

    @property
    def kind(self) -> str:
        return next(
            (k for k, pattern in KINDS.items() if re.match(pattern, self.opcode)), "integer"
        )


@dataclass(frozen=True)
class Listing:
    """The instructions of a kernel, and which of them a label stands before."""

    instructions: list[Instruction]
    labels: dict[str, int]

    def target(self, at: int) -> int | None:
        """Where a branch leads."""
        if not self.instructions[at].opcode.startswith("BRA"):
            return None
        found = re.search(r"\.L_\w+", self.instructions[at].operands)
        return self.labels.get(found[0]) if found else None

    def count(self, kind: str, first: int, last: int) -> int:
        return sum(i.kind == kind for i in self.instructions[first:last])


def find_nvdisasm() -> str | None:
    """On the PATH, beside this Python, or in NVIDIA's package."""
    found = shutil.which("nvdisasm") or shutil.which(
        "nvdisasm", path=str(Path(sys.executable).parent)
    )
    spec = importlib.util.find_spec("nvidia")
    for folder in [] if found or spec is None else spec.submodule_search_locations or []:
        found = next((str(path) for path in Path(folder).glob("cu*/bin/nvdisasm")), found)
    return found


def disassemble(architecture: str, nvdisasm: str) -> str:
    """All kernels. Raises Error if a tool fails."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = f"{folder}/table.cubin"
        for command in (
            ["nvcc", "-std=c++17", "-O3", "-Icsrc", "-Icsrc/include", "-arch", architecture]
            + ["-cubin", SOURCES[0], "-o", cubin],
            [nvdisasm, "--print-code", cubin],
        ):
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if done.returncode != 0:
                raise Error(f"{Path(command[0]).name} failed: {done.stderr.strip()}")
    return done.stdout


def parse(text: str) -> dict[str, Listing]:
    """By symbol."""
    kernels = {}
    for part in re.split(r"^\.text\.", text, flags=re.MULTILINE)[1:]:
        instructions: list[Instruction] = []
        labels: dict[str, int] = {}
        for line in part.splitlines()[1:]:
            if label := re.match(r"(\.L_\w+):", line.strip()):
                labels[label[1]] = len(instructions)
            elif found := re.match(
                r"\s+/\*[0-9a-f]{4,}\*/\s+(@!?U?P\d\s+)?([\w.]+)\s*(.*?);", line
            ):
                instructions.append(Instruction((found[1] or "").strip(), found[2], found[3]))
        kernels[part.partition(":")[0]] = Listing(instructions, labels)
    return kernels


def main_loop(listing: Listing) -> tuple[int, int] | None:
    """First and last instruction of the innermost loop with the most multiply-adds.

    Loops that read no shared memory, if others do, are branches in disguise (conv_direct.cuh).
    """
    loops = []
    for at in range(len(listing.instructions)):
        start = listing.target(at)
        if start is not None and start < at and listing.count("multiply_adds", start, at + 1) > 0:
            loops.append((start, at))
    loops = [a for a in loops if listing.count("shared_loads", a[0], a[1]) > 0] or loops
    innermost = [a for a in loops if not any(a != b and contains(a, b) for b in loops)]
    return max(innermost, key=lambda loop: listing.count("multiply_adds", *loop), default=None)


def contains(outer: tuple[int, int], inner: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def guarded(listing: Listing, first: int, last: int) -> list[tuple[int, int]]:
    """The smallest parts of the loop that a branch may skip and that multiply: one per output."""
    multiply_adds = partial(listing.count, "multiply_adds")
    skipped = []
    for at in range(first, last):
        end = listing.target(at)
        conditional = listing.instructions[at].predicate != ""
        if conditional and end is not None and at < end <= last + 1:
            if 0 < multiply_adds(at, end) < multiply_adds(first, last):
                skipped.append((at + 1, end))
    return [
        a for a in skipped if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in skipped)
    ]


def connections_of_patch(density: float, group: int) -> float:
    """How many of `group` outputs share a patch that any of them needs."""
    return density * group / (1.0 - (1.0 - density) ** group)


def measure(listing: Listing, group: int) -> dict[str, Any]:
    """The main loop: what it consists of, and the share of multiply-adds among what is issued."""
    loop = main_loop(listing)
    if loop is None:
        return {}
    first, last = loop
    body = listing.instructions[first : last + 1]
    parts = guarded(listing, first, last)
    result: dict[str, Any] = {"instructions": len(body)}
    result |= {kind: 0 for kind in (*KINDS, "integer")} | Counter(i.kind for i in body)
    # Outputs that are not connected are skipped by branches; or, where there is little to skip, by
    # predicates, which are issued all the same. Other loops have several ways through.
    skipped = 0.0
    if len(parts) == group and len({listing.count("multiply_adds", *part) for part in parts}) == 1:
        skipped = sum(end - start for start, end in parts) / group
    elif parts:
        return result
    result["per_connection"], result["per_patch"] = skipped, len(body) - skipped * group
    result["share"] = {}
    for density in DENSITIES:
        count = connections_of_patch(density, group)
        issued = result["per_patch"] + count * skipped
        share = count * result["multiply_adds"] / group / issued
        result["share"][f"{density:g}"] = round(share, 3)
    return result


def global_accesses(listing: Listing) -> dict[str, int]:
    """How many instructions read global memory, by what one thread reads: "LDG 16 bytes"."""

    def name(opcode: str) -> str:
        width = 16 if ".128" in opcode else 8 if ".64" in opcode else 4
        return f"{opcode.partition('.')[0]} {width} bytes"

    found = Counter(
        name(i.opcode) for i in listing.instructions if re.match(r"LDG(STS)?\b", i.opcode)
    )
    return dict(sorted(found.items()))


def group_of(kernel: str) -> int:
    """Output channels of a warp."""
    if kernel.startswith("ConvDirect"):
        return int(re.findall(r"\d+", kernel)[2])
    return 4 if kernel.startswith("ConvGeneral") else 8


def collect(
    nvdisasm: str, architectures: Sequence[str] = ARCHITECTURES
) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    for architecture in architectures:
        kernels = {readable(s): x for s, x in parse(disassemble(architecture, nvdisasm)).items()}
        tables[architecture] = {
            name: {
                "main_loop": measure(listing, group_of(name)),
                "global_loads": global_accesses(listing),
            }
            for name, listing in sorted(kernels.items())
            if name.startswith(("Conv", "Linear"))
        }
    return tables


def document_table(tables: dict[str, dict[str, Any]]) -> str:
    """The main loops on the first architecture, as the table of docs/GPU.md."""
    shares = [f"share at density {density:g}" for density in DENSITIES]
    columns = ["multiply-adds", "loads", "branches", "others", *shares]
    lines = [f"{TABLE_HEAD}| {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for kernel, found in tables[ARCHITECTURES[0]].items():
        loop = found["main_loop"]
        if not kernel.startswith(("ConvDirect", "ConvGeneral", "ConvWinograd")):
            continue
        loads = loop["shared_loads"] + loop["global_loads"]
        others = loop["integer"] + loop["float_other"]
        cells = [loop["multiply_adds"], loads, loop["branches"], others]
        for density in DENSITIES:
            share = loop.get("share", {}).get(f"{density:g}")
            cells.append("" if share is None else f"{100 * share:.0f} %")
        lines.append(f"| `{kernel}` | {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def write_table(text: str, table: str, head: str = TABLE_HEAD) -> str:
    """The document with the table that begins with ``head``, of main loops, replaced."""
    start = text.index(head)
    end = text.find("\n\n", start)
    return text[:start] + table + (text[end + 1 :] if end >= 0 else "")


def main() -> None:
    nvdisasm = find_nvdisasm()
    if nvdisasm is None:
        sys.exit("error: nvdisasm not found: pip install nvidia-cuda-nvdisasm")
    try:
        version = compiler_version()
        tables = collect(nvdisasm)
    except (FileNotFoundError, Error) as error:
        sys.exit(f"error: {error}")
    write_text(RESULT, json.dumps({"nvcc": version, "kernels": tables}, indent=1) + "\n")
    write_text(DOCUMENT, write_table(DOCUMENT.read_text(), document_table(tables)))
    print(document_table(tables), end="")


if __name__ == "__main__":
    main()
