"""Settings that all tests share."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

# Helpers that several test files import by their plain names.
sys.path.insert(0, str(Path(__file__).parent / "support"))

# Timing on a shared machine says nothing about a single example; the seed is fixed so that a
# failure in CI is the same failure at home.
settings.register_profile("kernelprune", deadline=None, derandomize=True, database=None)
settings.load_profile("kernelprune")
