"""The committed table of what the kernels take of a GPU, which stands in for a GPU here."""

from __future__ import annotations

import json
import re

import pytest

from bench.cuda_nvrtc import ARCHITECTURES as NVRTC_ARCHITECTURES, RESULT as NVRTC
from bench.cuda_resources import ARCHITECTURES, DOCUMENT, RESULT, ROOT, document_table, parse

TABLE = json.loads(RESULT.read_text())["kernels"]


def stack_of(kernel: str) -> int:
    """Bytes of stack that are no spill: CUDA's sinf and cosf have a table there, for angles beyond
    100 000."""
    return 32 if kernel.startswith("UnaryKernel") else 0


def operator_kernels() -> set[str]:
    """The types of the list of operators, for both storages."""
    rows = (ROOT / "csrc" / "cuda" / "kernels" / "ops" / "list.inl.h").read_text()
    types = re.findall(r"^KP_KERNEL\(\w+, (.+)\)$", rows, re.MULTILINE)
    assert len(types) == rows.count("\nKP_KERNEL(")
    return {re.sub(r"\bT\b", storage, name) for name in types for storage in ("float", "Half")}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_kernel_spills(architecture: str) -> None:
    """A kernel that spills moves its accumulators through memory: nobody would see it but a GPU."""
    for kernel, use in TABLE[architecture].items():
        assert use["spill_bytes"] == 0, kernel
        assert use["stack_bytes"] <= stack_of(kernel), kernel
        # The kernels of staging.cuh are planned for two blocks of 256 threads, conv_winograd for
        # one of 512.
        if kernel.startswith(("ConvDirect", "ConvHalf", "ConvMma", "ConvWinograd")):
            assert use["threads_by_registers"] >= 512, kernel


def test_cuda_12_compiles_every_kernel_without_spills() -> None:
    """A kernel that CUDA 12 spills, or that it was never given: python -m bench.cuda_nvrtc."""
    committed = json.loads(NVRTC.read_text())
    assert committed["nvrtc"].startswith("12.")
    assert set(committed["kernels"]) == set(NVRTC_ARCHITECTURES)
    for kernels in committed["kernels"].values():
        assert set(kernels) == set(TABLE["sm_90"])
        assert all(use["spill_bytes"] == 0 for use in kernels.values())
        assert all(use["stack_bytes"] <= stack_of(kernel) for kernel, use in kernels.items())


def test_the_table_has_every_kernel() -> None:
    """A kernel that is not in the table was never looked at: run python -m bench.cuda_resources."""
    folder = ROOT / "csrc" / "cuda" / "kernels"
    own = [(folder / f"{name}.cuh").read_text() for name in ("kernels", "kernels_half")]
    common = (folder / "kernels_common.cuh").read_text()
    convolutions = {f"ConvDirect<{x}>" for x in re.findall(r"= conv_row<([\d, ]+)>", own[0])}
    convolutions |= {f"ConvHalf<{x}>" for x in re.findall(r"= half_row<([\d, ]+)>", own[1])}
    for storage in ("float", "Half"):
        products = re.findall(r"= mma_row<T, ([\d, ]+)>", common)
        convolutions |= {f"ConvMma<{storage}, {x}>" for x in products}
    assert len(convolutions) == 44
    rows = r"table\.[\w\[\]]+ =\s*(?:\w+_)?row<"
    kernels = sum(len(re.findall(rows, text)) for text in (*own, common, common))
    operators = operator_kernels()
    for architecture in ARCHITECTURES:
        assert convolutions | operators <= set(TABLE[architecture])
        assert len(TABLE[architecture]) == kernels + len(operators)


def test_reports_are_read_right() -> None:
    """A pattern that no longer matches would find no spills, ever."""
    scope = "_ZN11kernelprune4cuda12_GLOBAL__N_1"
    name = "5entryINS1_10ConvDirectILi3ELi1ELi4ELi4ELi4EEEEEvNS0_4ArgsE"
    report = f"""ptxas info    : Compiling entry function '{scope}{name}' for 'sm_90'
    24 bytes stack frame, 16 bytes spill stores, 48 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 24 bytes cumulative stack size
"""
    assert parse(report) == {
        "ConvDirect<3, 1, 4, 4, 4>": {
            "registers": 128,
            "threads_by_registers": 512,
            "stack_bytes": 24,
            "spill_bytes": 64,
            "static_shared_bytes": 0,
        }
    }


def test_the_document_has_the_numbers_of_the_table() -> None:
    """A number in a document that nothing produces is a number nobody can check."""
    assert DOCUMENT.read_text().endswith(document_table(TABLE))
