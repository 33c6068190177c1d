"""The options of pruning by a criterion."""

from __future__ import annotations

from dataclasses import dataclass

from kernelprune.prune.group_options import GroupOptions
from kernelprune.prune.options import (
    CoupledOptions,
    SampleOptions,
    ScopeOptions,
    SeedOptions,
    option,
)

SLIMMING_PENALTY = 1e-3


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(SampleOptions, SeedOptions):
    """Which score a connection has; the options of ``sensitivity``."""

    criterion: str = option(
        "l1",
        "'l1' or 'l2' norm of the kernel, 'random' (from the seed), 'taylor' (sum of "
        "abs(gradient * weight)), 'gradient' (norm of the kernel's gradient); of channels also "
        "'slimming' (abs(gamma) of the batch norm before)",
    )


@dataclass(frozen=True, kw_only=True)
class CriterionOptions(ScopeOptions, ScoreOptions, CoupledOptions):
    """Options of ``prune_channels`` (``scope``: "layer" by default)."""


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions(ScopeOptions, ScoreOptions, GroupOptions):
    """Options of ``prune_connections`` (``scope``: "global-normalised" by default)."""
