"""SparseConv2d: a layer of connections, in the place of nn.Conv2d."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kernelprune.errors import Error
from kernelprune.ops.conv2d import conv2d

_run = conv2d.default


class SparseConv2d(nn.Module):
    """A convolution that holds and computes its kept connections alone.

    ``[N, in_channels, H, W] -> [N, out_channels, H', W']``, as nn.Conv2d with the same numbers.
    ``weight`` [connections, kh, kw] and ``bias`` [out_channels] are parameters; the pattern,
    ``row_ptr`` [out_channels + 1] and ``col`` [connections] int32, is a pair of buffers, so that a
    state dict holds all of the layer. Usually made by :meth:`from_dense` or
    :func:`kernelprune.sparsify`. float32; float64 works, as slowly as dense, for checks of
    gradients. Weights start at zero.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Height and width of a kernel.
        connections: How many are kept.
        stride, padding, dilation: As for nn.Conv2d.
        groups: What the dense layer has; the pattern holds the connections either way.
        bias: Whether there is one.
        device, dtype: Of the weights.

    Raises:
        Error: The padding is not smaller than the kernel.
    """

    bias: nn.Parameter | None
    row_ptr: torch.Tensor
    col: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        connections: int,
        stride: int | tuple[int, int] = 1,
        padding: int | str | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride, self.dilation = _pair(stride), _pair(dilation)
        self.padding = padding if isinstance(padding, str) else _pair(padding)
        self.groups = groups
        self._borders = _borders(self.kernel_size, self.dilation, self.padding)
        extents = [d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        if any(border >= extent for border, extent in zip(self._borders, extents * 2, strict=True)):
            raise Error(f"padding {self.padding} is not smaller than the kernel {extents}")
        options = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.zeros(connections, *self.kernel_size, **options))
        values = torch.zeros(out_channels, **options)
        self.register_parameter("bias", nn.Parameter(values) if bias else None)
        row_ptr = torch.full((out_channels + 1,), connections, dtype=torch.int32, device=device)
        row_ptr[0] = 0
        self.register_buffer("row_ptr", row_ptr)
        col = torch.arange(connections, dtype=torch.int32, device=device)
        self.register_buffer("col", col)

    @classmethod
    def from_dense(cls, conv: nn.Conv2d) -> SparseConv2d:
        """The connections of ``conv`` that have a weight other than zero.

        Raises:
            Error: ``conv`` is not a plain Conv2d, or pads with anything but zeros.
        """
        if not isinstance(conv, nn.Conv2d) or conv.padding_mode != "zeros":
            kind = type(conv).__name__
            mode = getattr(conv, "padding_mode", None)
            why = f" with padding_mode {mode!r}" if mode not in (None, "zeros") else ""
            raise Error(f"{kind}{why} cannot be a SparseConv2d: only Conv2d padded by zeros can")
        weight = conv.weight.detach()
        kept = weight.flatten(2).ne(0).any(2)  # [O, I/groups]
        found = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            int(kept.sum()),
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
            weight.device,
            weight.dtype,
        )
        rows, columns = kept.nonzero(as_tuple=True)
        block = rows // (conv.out_channels // conv.groups)
        with torch.no_grad():
            found.weight.copy_(weight[kept])
            found.row_ptr[1:] = kept.sum(1).cumsum(0)
            found.col.copy_(columns + block * (conv.in_channels // conv.groups))
            if found.bias is not None and conv.bias is not None:
                found.bias.copy_(conv.bias)
                found.bias.requires_grad_(conv.bias.requires_grad)
        found.weight.requires_grad_(conv.weight.requires_grad)
        return found.train(conv.training)

    def to_dense(self) -> nn.Conv2d:
        """An nn.Conv2d that computes the same, with zeros for the connections that are missing."""
        conv = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        counts = (self.row_ptr[1:] - self.row_ptr[:-1]).long()
        rows = torch.repeat_interleave(
            torch.arange(self.out_channels, device=self.weight.device), counts
        )
        with torch.no_grad():
            conv.weight.zero_()
            conv.weight[rows, self.col.long() % (self.in_channels // self.groups)] = self.weight
            if conv.bias is not None and self.bias is not None:
                conv.bias.copy_(self.bias)
                conv.bias.requires_grad_(self.bias.requires_grad)
        conv.weight.requires_grad_(self.weight.requires_grad)
        return conv.train(self.training)

    @property
    def density(self) -> float:
        """Kept connections over all connections."""
        return len(self.col) / (self.out_channels * self.in_channels // self.groups)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        # By the dictionaries: four look-ups through nn.Module cost 2 us.
        parameters, buffers = self._parameters, self._buffers
        return _run(
            input,
            parameters["weight"],
            buffers["row_ptr"],
            buffers["col"],
            parameters["bias"],
            self.in_channels,
            self.stride,
            self._borders,
            self.dilation,
        )

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}"
        if any(self._borders):
            text += f", padding={self.padding!r}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return f"{text}, connections={len(self.col)}, density={self.density:.3g}"

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        # Another pattern may have another number of connections.
        col, weight = state.get(f"{prefix}col"), state.get(f"{prefix}weight")
        if isinstance(col, torch.Tensor) and isinstance(weight, torch.Tensor):
            if len(col) == len(weight) != len(self.col):
                self.col = self.col.new_empty(len(col))
                self.weight.data = self.weight.data.new_empty((len(col), *self.kernel_size))
                self.weight.grad = None
        super()._load_from_state_dict(state, prefix, *args)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _borders(
    kernel: tuple[int, int], dilation: tuple[int, int], padding: str | tuple[int, int]
) -> tuple[int, ...]:
    """Padding at the top, left, bottom and right."""
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        before = [total // 2 for total in totals]
        return (*before, *(total - half for total, half in zip(totals, before, strict=True)))
    if isinstance(padding, str):
        raise Error(f"padding must be numbers, 'valid' or 'same', got {padding!r}")
    return (*padding, *padding)
