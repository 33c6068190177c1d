"""The connection-sparse convolution as a torch operator, ``torch.ops.kernelprune.conv2d``, and as a
module; sparsify puts it into a model. See docs/OPERATORS.md."""

from __future__ import annotations

from kernelprune.ops.conv2d import conv2d
from kernelprune.ops.module import SparseConv2d
from kernelprune.ops.swap import densify, sparsify

__all__ = ["SparseConv2d", "conv2d", "densify", "sparsify"]
