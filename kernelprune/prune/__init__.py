"""Pruning: Synaptic Strength, baselines, masks, thresholds, dry-run plans.

Names are resolved on first use: options can be read, and shown by the command line, without torch.
"""

from kernelprune.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
