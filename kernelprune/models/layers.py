"""What the models share: a bias-free convolution with its batch norm, widths, start values."""

from __future__ import annotations

from torch import nn

from kernelprune.errors import Error


def scaled(channels: int, width: float) -> int:
    """``channels * width``, rounded, at least 1."""
    if not width > 0:
        raise Error(f"width={width}: must be above 0")
    return max(1, round(channels * width))


def conv(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, groups: int = 1
) -> nn.Conv2d:
    """A convolution that keeps the map at stride 1; the batch norm behind it has the bias."""
    padding = kernel // 2
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)


def initialise(model: nn.Module) -> None:
    """Kaiming normal for convolutions (He et al. 2015, fan out), torch's own for the rest."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
