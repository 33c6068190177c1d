"""Pruning: Synaptic Strength, baselines, masks, thresholds, dry-run plans."""

from __future__ import annotations

from kernelprune.prune.batches import recalibrate
from kernelprune.prune.counts import Counts, count
from kernelprune.prune.criteria import (
    CHANNEL_CRITERIA,
    CRITERIA,
    prune_channels,
    prune_connections,
    scale_penalty,
)
from kernelprune.prune.discrimination import GRANULARITIES, DiscriminationAware
from kernelprune.prune.distributed import synchronised_norms
from kernelprune.prune.masks import (
    apply_masks,
    attach_masks,
    finalize_masks,
    load_masks,
    masks_of,
    save_masks,
)
from kernelprune.prune.plan import LayerPlan, Plan
from kernelprune.prune.schedule import cubic_densities, round_steps
from kernelprune.prune.sensitivity import Sensitivity, sensitivity
from kernelprune.prune.synaptic import SynapticStrength
from kernelprune.prune.threshold import SCOPES

__all__ = [
    "CHANNEL_CRITERIA",
    "CRITERIA",
    "GRANULARITIES",
    "SCOPES",
    "Counts",
    "DiscriminationAware",
    "LayerPlan",
    "Plan",
    "Sensitivity",
    "SynapticStrength",
    "apply_masks",
    "attach_masks",
    "count",
    "cubic_densities",
    "finalize_masks",
    "load_masks",
    "masks_of",
    "prune_channels",
    "prune_connections",
    "recalibrate",
    "round_steps",
    "save_masks",
    "scale_penalty",
    "sensitivity",
    "synchronised_norms",
]
