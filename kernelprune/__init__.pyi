from typing import Any

from kernelprune import (
    benchmarking as benchmarking,
    compression as compression,
    data as data,
    format as format,
    frontends as frontends,
    graph as graph,
    models as models,
    ops as ops,
    prune as prune,
    quantization as quantization,
    report as report,
    runtime as runtime,
    train as train,
)
from kernelprune.benchmarking import benchmark as benchmark
from kernelprune.compression.compress import compress as compress
from kernelprune.errors import (
    DeviceError as DeviceError,
    Error as Error,
    FormatError as FormatError,
    MissingPackage as MissingPackage,
    QuantizationWarning as QuantizationWarning,
    ShapeError as ShapeError,
    SparsityWarning as SparsityWarning,
    UnsupportedOperator as UnsupportedOperator,
    UnsupportedWarning as UnsupportedWarning,
)
from kernelprune.frontends.onnx.load import load_onnx as load_onnx
from kernelprune.frontends.onnx.write import to_onnx as to_onnx
from kernelprune.frontends.torch.check import check as check
from kernelprune.frontends.torch.export import export as export
from kernelprune.ops import SparseConv2d as SparseConv2d, densify as densify, sparsify as sparsify
from kernelprune.prune import (
    DiscriminationAware as DiscriminationAware,
    SynapticStrength as SynapticStrength,
    prune_channels as prune_channels,
    prune_connections as prune_connections,
    reconstruct as reconstruct,
)
from kernelprune.prune.compact import compact as compact
from kernelprune.prune.load import load_pruned as load_pruned
from kernelprune.quantization import (
    QuantizationAware as QuantizationAware,
    quantize as quantize,
    quantize_sensitivity as quantize_sensitivity,
)
from kernelprune.runtime import Engine as Engine

_core: Any  # the compiled engine
__version__: str
