"""An operator that the graph lacks: it may do anything to anything. Only in traced graphs."""

from __future__ import annotations

from kernelprune.graph.ops.base import Op


class Opaque(Op):
    name = "opaque"
    since = 1
    in_file = False
    min_inputs, max_inputs = 0, 65536
