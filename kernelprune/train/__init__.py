"""Training: a loop whose result depends on its options alone, and checkpoints without pickle.

Names are resolved on first use: options can be read, and shown by the command line, without torch.
"""

from kernelprune.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
