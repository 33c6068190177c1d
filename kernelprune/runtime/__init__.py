"""Runs model files. Needs numpy alone: no torch, no safetensors."""

from __future__ import annotations

from kernelprune.runtime.engine import Engine, LayerProfile, available_isas, fma_peak
from kernelprune.runtime.plan import Plan
from kernelprune.runtime.tuning import TunedLayer, Tuning, tune

__all__ = [
    "Engine",
    "LayerProfile",
    "Plan",
    "TunedLayer",
    "Tuning",
    "available_isas",
    "fma_peak",
    "tune",
]
