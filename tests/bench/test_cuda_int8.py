"""bench.cuda_int8: the committed counts are those of the kernels that are in the table."""

from __future__ import annotations

import json
import re

from bench.cuda_int8 import ARCHITECTURES, RESULT, document_table
from bench.cuda_resources import DOCUMENT, ROOT

FOUND = json.loads(RESULT.read_text())


def test_every_kernel_was_compiled() -> None:
    """A kernel that is not in the file was never looked at: run python -m bench.cuda_int8."""
    text = (ROOT / "csrc/cuda/kernels/kernels_int8.cuh").read_text()
    tiles = {f"ConvInt8<{x}>" for x in re.findall(r"= int8_row<([\d, ]+)>", text)}
    others = re.findall(r"table\.[\w.]+ = row<", text)
    assert len(tiles) == 12
    for architecture in ARCHITECTURES:
        kernels = FOUND["registers"][architecture]
        assert tiles <= set(kernels) and len(kernels) == len(tiles) + len(others)
        assert all(kernels[tile] <= 128 for tile in tiles), "two blocks a multiprocessor"


def test_main_loops_are_of_dot_products() -> None:
    """If this fails, the compiler makes something else of the products of bytes than one
    instruction for four, or the loop that was counted is another one."""
    for name, loop in FOUND["main_loops"].items():
        if not name.startswith("ConvInt8<"):
            continue
        kernel, _, group, rows, columns = map(int, re.findall(r"\d+", name.partition("<")[2]))
        of_row = group * rows * columns * -(-kernel // 4)
        assert loop["dot_products"] == of_row * (kernel if kernel <= 3 else 1), name


def test_document_has_the_counts() -> None:
    """If this fails, docs/GPU.md shows other numbers than were counted."""
    assert document_table(FOUND["main_loops"]) in DOCUMENT.read_text()
