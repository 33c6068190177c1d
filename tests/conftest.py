"""Settings that all tests share."""

from __future__ import annotations

import gc
import os

import kernelprune._emulator  # noqa: F401  # the device "cuda-emulated"
import pytest
from hypothesis import settings

# pytest-xdist tells its workers the width of the terminal. Without it tables are as wide as in a
# file, wherever the tests run.
os.environ.pop("COLUMNS", None)

# Timing on a shared machine says nothing about a single example; the seed is fixed so that a
# failure in CI is the same failure at home.
settings.register_profile("kernelprune", deadline=None, derandomize=True, database=None)
settings.load_profile("kernelprune")


# Files of more than half a minute, the longest first. Processes take whole files one after the
# other, and one that begins when the others end is waited for.
LONG = (
    "train/test_methods.py", "prune/test_channels.py", "prune/test_distributed.py",
    "train/test_recipe.py", "train/test_loop.py", "runtime/test_models.py",
    "prune/test_budget.py", "prune/test_coupled.py", "prune/test_discrimination.py",
    "csrc/test_fuzz.py", "prune/test_load.py",
    "models/test_small_zoo.py", "models/test_zoo_sizes.py", "frontends/torch/test_misuse.py",
    "prune/test_criteria.py", "prune/test_any_task.py", "runtime/test_random_networks.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONG)}
    root = os.path.dirname(__file__)
    items.sort(key=lambda item: places.get(os.path.relpath(item.path, root), len(places)))


def pytest_collection_finish() -> None:
    """All modules and tests are there now and stay to the end: the garbage collector, which tracing
    a model calls often, need not look through a million objects each time."""
    gc.collect()
    gc.freeze()
