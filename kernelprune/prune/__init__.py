"""Pruning: Synaptic Strength, baselines, masks, thresholds, dry-run plans.

Names are resolved on first use: options can be read, and shown by the command line, without torch.
"""

from __future__ import annotations

from typing import Any

from kernelprune.lazy import resolve

# Module -> the public names that it defines.
_MODULES = {
    "batches": ("recalibrate",),
    "counts": ("Counts", "count"),
    "criteria": ("prune_channels", "prune_connections", "scale_penalty"),
    "criterion_options": ("CriterionOptions", "ScoreOptions"),
    "discrimination": ("DiscriminationAware",),
    "discrimination_options": ("GRANULARITIES", "DiscriminationOptions"),
    "distributed": ("synchronised_norms",),
    "layer_sensitivity": ("Sensitivity", "sensitivity"),
    "masks": (
        "apply_masks", "attach_masks", "finalize_masks", "load_masks", "masks_of", "save_masks",
    ),
    "options": ("SCOPES",),
    "plan": ("LayerPlan", "Plan"),
    "schedule": ("cubic_densities", "round_steps"),
    "scores": ("CHANNEL_CRITERIA", "CRITERIA"),
    "synaptic": ("SynapticStrength",),
    "synaptic_options": ("SynapticOptions",),
}  # fmt: skip
_PUBLIC = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = resolve(f"{__name__}.{name}", f"{__name__}.{_PUBLIC[name]}", name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
