"""kernelprune: train and prune CNNs, and run what is left fast.

Public names are resolved on first use, so that ``import kernelprune.runtime`` needs numpy alone.
"""

from importlib import metadata as _metadata

from kernelprune.lazy import attach

try:
    __version__ = _metadata.version("kernelprune")
except _metadata.PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__getattr__, __dir__, __all__ = attach(__name__)
