"""conv2d on CUDA: a one-layer model in the engine, made anew when the weights have changed. The
gradients are torch's dense convolutions."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from kernelprune import _core
from kernelprune.errors import ShapeError
from kernelprune.format.writer import to_bytes
from kernelprune.graph.connections import Connections
from kernelprune.graph.ir import Graph, Node, Value
from kernelprune.ops import dense
from kernelprune.ops.cpu import check, check_devices, check_pattern
from kernelprune.ops.pattern import Pattern, Weights, pattern_of

_MOST_ENGINES = 64


class _Layer:
    """The engine of one kind of call, with the weights of the last one."""

    def __init__(self) -> None:
        self.weights = Weights()
        self.lock = threading.Lock()
        self.made_of: Any = None
        self.engine: Any = None


def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    row_ptr: torch.Tensor,
    col: torch.Tensor,
    bias: torch.Tensor | None,
    in_channels: int,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
) -> torch.Tensor:
    check(input, weight, bias, in_channels)
    check_devices(input, row_ptr, col)
    pattern = pattern_of(row_ptr, col)
    check_pattern(pattern, weight, bias, in_channels)
    if input.dtype == torch.float64:
        return dense.conv2d(pattern, input, weight, bias, stride, padding, dilation)
    device = f"cuda:{input.device.index}"
    graph = _graph(pattern, tuple(input.shape[1:]), weight, stride, padding, dilation)
    output = input.new_empty((len(input), *graph.nodes[0].shape))
    if len(input) == 0:
        return output
    engine = _engine(pattern, graph, weight, bias, device)
    _run(engine, input, output, [torch.cuda.current_stream(input.device).cuda_stream])
    return output


def _run(engine: Any, input: torch.Tensor, output: torch.Tensor, streams: list[int]) -> None:
    """On the device's own tensors: after what ``streams`` hold, and before what they get next."""
    addresses = [input.contiguous().data_ptr()], [output.data_ptr()]
    engine.run_pointers(
        *addresses, len(input), on_device=True, streams=streams, queue=bool(streams)
    )


def _graph(
    pattern: Pattern,
    image: tuple[int, ...],
    weight: torch.Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Graph:
    """One convolution, still without weights. Raises ShapeError."""
    sides = []
    for i in (0, 1):
        extent = dilation[i] * (weight.shape[1 + i] - 1) + 1
        span = image[1 + i] + padding[i] + padding[i + 2] - extent
        if span < 0:
            raise ShapeError(f"the kernel does not fit the input {list(image)}")
        sides.append(span // stride[i] + 1)
    params = {
        "kernel": list(weight.shape[1:]),
        "stride": list(stride),
        "padding": list(padding),
        "dilation": list(dilation),
        "activation": "none",
    }
    node = Node("conv2d", "conv2d", ["x"], "y", (pattern.out_channels, *sides), params)
    return Graph([Value("x", image)], ["y"], [node])


def _engine(
    pattern: Pattern, graph: Graph, weight: torch.Tensor, bias: torch.Tensor | None, device: str
) -> Any:
    node = graph.nodes[0]
    key = (device, graph.inputs[0].shape, *(tuple(v) for v in list(node.params.values())[:4]))
    if len(pattern.layers) >= _MOST_ENGINES and key not in pattern.layers:
        pattern.layers.clear()
    layer = pattern.layers.setdefault(key, _Layer())
    with layer.lock:
        # The bias goes into the engine as well, so a change of either makes it anew.
        biased = None if bias is None else (id(bias), bias.data_ptr(), bias._version)
        made_of = (layer.weights.version(weight), weight.data_ptr(), biased)
        if layer.made_of != made_of:
            node.connections = Connections(
                graph.inputs[0].shape[0],
                pattern.row_ptr.numpy(),
                pattern.col.numpy(),
                weight.detach().cpu().numpy(),
            )
            node.bias = None if bias is None else bias.detach().cpu().numpy()
            layer.engine = _core.Engine.load_bytes(
                to_bytes(graph), "conv2d", 1, "", 0, "strict", device=device
            )
            layer.made_of = made_of
        return layer.engine


def conv2d_input(
    grad: torch.Tensor,
    weight: torch.Tensor,
    row_ptr: torch.Tensor,
    col: torch.Tensor,
    in_channels: int,
    size: Sequence[int],
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
) -> torch.Tensor:
    pattern = pattern_of(row_ptr, col)
    return dense.conv2d_input(pattern, grad, weight, in_channels, size, stride, padding, dilation)


def conv2d_weight(
    grad: torch.Tensor,
    input: torch.Tensor,
    row_ptr: torch.Tensor,
    col: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
) -> torch.Tensor:
    pattern = pattern_of(row_ptr, col)
    return dense.conv2d_weight(pattern, grad, input, kernel, stride, padding, dilation)
