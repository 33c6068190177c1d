"""Runs model files. Needs numpy alone: no torch, no safetensors."""

from __future__ import annotations

from kernelprune.runtime.classification import Prediction
from kernelprune.runtime.engine import Engine
from kernelprune.runtime.instruction_sets import available_isas, fma_peak
from kernelprune.runtime.layer_profile import LayerProfile
from kernelprune.runtime.plan import Plan
from kernelprune.runtime.preprocessing import Preprocessing
from kernelprune.runtime.tuning import TunedLayer, Tuning, tune

__all__ = [
    "Engine",
    "LayerProfile",
    "Plan",
    "Prediction",
    "Preprocessing",
    "TunedLayer",
    "Tuning",
    "available_isas",
    "fma_peak",
    "tune",
]
