"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import settings

# Timing on a shared machine says nothing about a single example; the seed is fixed so that a
# failure in CI is the same failure at home.
settings.register_profile("kernelprune", deadline=None, derandomize=True, database=None)
settings.load_profile("kernelprune")
