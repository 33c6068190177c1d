"""Tables of models, benchmarks and machines, for a terminal; and a page about a model file."""

from __future__ import annotations

from kernelprune.report.fitted import FittedTable, add_row
from kernelprune.report.page import PageOptions, Strengths, write_page
from kernelprune.report.tables import (
    benchmark_table,
    count,
    difference_line,
    file_size,
    layer_table,
    machine_table,
    model_table,
    start_up_table,
    tuning_table,
)

__all__ = [
    "FittedTable",
    "PageOptions",
    "Strengths",
    "add_row",
    "benchmark_table",
    "count",
    "difference_line",
    "file_size",
    "layer_table",
    "machine_table",
    "model_table",
    "start_up_table",
    "tuning_table",
    "write_page",
]
