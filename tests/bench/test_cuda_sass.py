"""The committed counts of what the compiler makes of the kernels, which stand in for a GPU here."""

from __future__ import annotations

import json
import shutil

import pytest

from bench.cuda_resources import ARCHITECTURES, DOCUMENT, RESULT as RESOURCES, compiler_version
from bench.cuda_sass import (
    RESULT,
    collect,
    document_table,
    find_nvdisasm,
    main_loop,
    measure,
    parse,
    write_table,
)

COMMITTED = json.loads(RESULT.read_text())
TABLE = COMMITTED["kernels"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_large_3x3_kernel_multiplies_most_of_the_time(architecture: str) -> None:
    """Address arithmetic, or tests, that creep into the loop cost as much as multiply-adds."""
    loop = TABLE[architecture]["ConvDirect<3, 1, 4, 4, 4>"]["main_loop"]
    assert loop["multiply_adds"] == 4 * 9 * 16
    assert all(share >= 0.7 for share in loop["share"].values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_winograd_reads_and_tests_little(architecture: str) -> None:
    """Both ways through the loop: 64 multiply-adds each, and as few loads as the layout allows."""
    for size in (2, 4):
        loop = TABLE[architecture][f"ConvWinograd<{size}>"]["main_loop"]
        assert loop["multiply_adds"] == 2 * 64
        assert loop["shared_loads"] == 2 + 2 * 8
        assert loop["instructions"] <= 220


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_activations_are_read_16_bytes_at_a_time(architecture: str) -> None:
    """Where the layout allows it: a quarter of the instructions and requests."""
    for kernel, found in TABLE[architecture].items():
        if kernel.startswith("ConvDirect<1, 1,"):
            assert found["global_loads"]["LDGSTS 16 bytes"] >= 2, kernel
        if kernel.startswith("ConvWinograd"):
            assert "LDGSTS 4 bytes" not in found["global_loads"], kernel
    # Six rows of a tile, in the fill before the loop and in the one within.
    assert TABLE[architecture]["ConvWinograd<4>"]["global_loads"]["LDG 16 bytes"] == 12


def test_the_table_has_every_float32_convolution() -> None:
    """A kernel that is not in the table was never looked at: run python -m bench.cuda_sass."""
    resources = json.loads(RESOURCES.read_text())["kernels"]
    for architecture in ARCHITECTURES:
        own = ("ConvDirect", "ConvWinograd")
        convolutions = {kernel for kernel in resources[architecture] if kernel.startswith(own)}
        assert convolutions and convolutions <= set(TABLE[architecture])


def test_the_document_has_the_numbers_of_the_table() -> None:
    """A number in a document that nothing produces is a number nobody can check."""
    text = DOCUMENT.read_text()
    assert write_table(text, document_table(TABLE)) == text


LISTING = """
.text._ZkernelA:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   LDS.128 R4, [R1] ;
        /*0020*/              @!P0 BRA `(.L_x_2) ;
        /*0030*/                   LDG.E.CONSTANT R8, [R2.64] ;
        /*0040*/                   FFMA R9, R4, R8, R9 ;
        /*0050*/                   FFMA R10, R5, R8, R10 ;
.L_x_2:
        /*0060*/              @!P1 BRA `(.L_x_3) ;
        /*0070*/                   LDG.E.CONSTANT R8, [R2.64+0x4] ;
        /*0080*/                   FFMA R11, R4, R8, R11 ;
        /*0090*/                   FFMA R12, R5, R8, R12 ;
.L_x_3:
        /*00a0*/                   IADD3 R1, R1, 0x10, RZ ;
        /*00b0*/               @P2 BRA `(.L_x_1) ;
        /*00c0*/                   EXIT ;
.L_x_4:
        /*00d0*/                   BRA `(.L_x_4);
"""


def test_listings_are_read_right() -> None:
    """A pattern that no longer matches would count nothing, and every share would be right."""
    listing = parse(LISTING)["_ZkernelA"]
    assert main_loop(listing) == (1, 11)
    found = measure(listing, group=2)
    counts = {"multiply_adds": 4, "shared_loads": 1, "global_loads": 2, "branches": 3, "integer": 1}
    assert {key: found[key] for key in counts} == counts
    assert found["instructions"] == 11
    assert (found["per_patch"], found["per_connection"]) == (5, 3)
    # At density 1 both outputs are connected, at 0.1 1.053 of 2 that have a patch at all.
    assert found["share"]["1"] == round(4 / 11, 3)
    assert found["share"]["0.1"] == round(2 * 0.2 / 0.19 / (5 + 3 * 0.2 / 0.19), 3)


def test_the_compiler_still_makes_the_same() -> None:
    """The committed counts must be those of the kernels as they are now."""
    nvdisasm = find_nvdisasm()
    if shutil.which("nvcc") is None or nvdisasm is None:
        pytest.skip("needs nvcc and nvdisasm (pip install nvidia-cuda-nvdisasm)")
    if compiler_version() != COMMITTED["nvcc"]:
        pytest.skip(f"another nvcc than {COMMITTED['nvcc']}")
    assert collect(nvdisasm, ARCHITECTURES[:1]) == {ARCHITECTURES[0]: TABLE[ARCHITECTURES[0]]}
