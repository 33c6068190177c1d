"""Settings that all tests share."""

from __future__ import annotations

import gc
import os

import kernelprune._emulator  # noqa: F401  # the device "cuda-emulated"
from hypothesis import settings

# pytest-xdist tells its workers the width of the terminal. Without it tables are as wide as in a
# file, wherever the tests run.
os.environ.pop("COLUMNS", None)

# Timing on a shared machine says nothing about a single example; the seed is fixed so that a
# failure in CI is the same failure at home.
settings.register_profile("kernelprune", deadline=None, derandomize=True, database=None)
settings.load_profile("kernelprune")


def pytest_collection_finish() -> None:
    """All modules and tests are there now and stay to the end: the garbage collector, which tracing
    a model calls often, need not look through a million objects each time."""
    gc.collect()
    gc.freeze()
