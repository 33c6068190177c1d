"""The arithmetic of what bounds a layer on a GPU."""

from __future__ import annotations

import json

import pytest

from bench.cuda_resources import DOCUMENT
from bench.cuda_roofline import (
    BANDWIDTH,
    PEAK,
    RESULT,
    Layer,
    bounds,
    compute,
    share,
    table,
    write_table,
)

LOOP = {"multiply_adds": 400, "per_patch": 50.0, "per_connection": 150.0}


def test_bounds_of_a_layer_worked_out_by_hand() -> None:
    """If this fails, the table says the wrong thing about what to make faster."""
    layer = Layer("", in_channels=10, out_channels=20, side=8, kernel=3, loop="k")
    found = bounds(layer, 0.5, {"k": {"main_loop": LOOP}})
    moved = 4 * 64 * 64 * (10 + 20) + 100 * 40
    macs = 100 * 9 * 64 * 64
    assert found["flops_per_byte"] == pytest.approx(2 * macs / moved)
    assert found["memory_microseconds"] == pytest.approx(moved / BANDWIDTH * 1e6)
    issued = share(LOOP, 0.5, False)
    assert found["compute_microseconds"] == pytest.approx(macs / PEAK / issued * 1e6)
    pool = bounds(Layer("", 3, 3, 4, 0, stride=2), 1.0, {})
    assert pool["compute_microseconds"] == 0 and pool["bound"] == "memory"
    assert pool["memory_microseconds"] == pytest.approx(
        4 * 64 * (3 * 64 + 3 * 16) / BANDWIDTH * 1e6
    )


def test_shares_of_a_loop_worked_out_by_hand() -> None:
    """If this fails, pruned layers look as if their patches were full, or empty."""
    assert share(LOOP, 1.0, False) == pytest.approx(400 / 650)
    assert share(LOOP, 1.0, True) == pytest.approx(100 / 200)
    mean = 4 * 0.1 / (1 - 0.9**4)
    assert share(LOOP, 0.1, False) == pytest.approx(mean * 100 / (50 + mean * 150))


def test_the_document_has_the_numbers() -> None:
    """A bound in the document must follow from the committed counts of instructions."""
    committed = json.loads(RESULT.read_text())
    assert committed["measured"] is False
    assert committed["rows"] == compute()
    text = DOCUMENT.read_text()
    assert write_table(text, table(committed["rows"])) == text
