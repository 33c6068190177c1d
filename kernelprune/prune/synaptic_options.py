"""The options of Synaptic Strength."""

from __future__ import annotations

from dataclasses import dataclass

from kernelprune.prune.group_options import GroupOptions
from kernelprune.prune.options import Options, ScopeOptions, option

SCALES = ("auto", "measured", "kernel")


@dataclass(frozen=True, kw_only=True)
class PenaltyOptions(Options):
    """Of methods that train with a penalty before they prune."""

    penalty: float | None = option(
        None,
        "weight of the sum of the strengths in the loss, by default 0.1 / root of the connections "
        "that are not zero, which suits a few epochs at a learning rate of 0.1; of the batch "
        "norms' scales (slimming), by default 1e-3",
        least=0,
        command_line=True,
    )


@dataclass(frozen=True, kw_only=True)
class SynapticOptions(ScopeOptions, GroupOptions, PenaltyOptions):
    """Options of ``SynapticStrength``; ``scope`` is "global" by default. The strengths of a
    ``group`` are trained as one."""

    scale: str = option(
        "auto",
        "where the scales of the maps come from: auto (moved out of the batch norms where that is "
        "exact, else measured), measured, or kernel (none)",
        choices=SCALES,
    )


@dataclass(frozen=True, kw_only=True)
class LatencyOptions(Options):
    """A time limit in place of a density."""

    latency_ms: float | None = option(
        None,
        "milliseconds of the engine on this machine, in place of the density (synaptic, "
        "reconstruct)",
        above=0,
        command_line=True,
    )
    latency_batch: int = option(
        1, "images that those milliseconds are for", least=1, command_line=True
    )
    latency_threads: int = option(1, "threads of the engine for them", least=1)
