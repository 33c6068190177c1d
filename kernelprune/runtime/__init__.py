"""Runs model files. Needs numpy alone: no torch, no safetensors."""

from __future__ import annotations

from kernelprune.runtime.engine import Engine, LayerProfile, available_isas, fma_peak

__all__ = ["Engine", "LayerProfile", "available_isas", "fma_peak"]
