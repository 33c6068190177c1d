"""The capture table: ATen operator -> the row that appends its nodes. The rows are those of the op
classes (kernelprune.graph.ops), and of operators that leave no node.

A row raises UnsupportedOperator with the reason; trace adds the node and the source line.
"""

from __future__ import annotations

from kernelprune.frontends.torch import fake_quantized, rearrange
from kernelprune.graph.ops import torch_rows
from kernelprune.graph.ops.base import Row

OPERATORS: dict[str, Row] = {
    **torch_rows(),
    **rearrange.ROWS,
    **fake_quantized.ROWS,
}
