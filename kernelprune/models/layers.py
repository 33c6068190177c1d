"""What the models share: a bias-free convolution with its batch norm, channel attention, widths,
stems, start values."""

from __future__ import annotations

import torch
from torch import nn

from kernelprune.errors import Error


def scaled(channels: int, width: float) -> int:
    """``channels * width``, rounded, at least 1."""
    if not width > 0:
        raise Error(f"width={width}: must be above 0")
    return max(1, round(channels * width))


def divisible(channels: float, by: int = 8) -> int:
    """The nearest multiple of ``by``, at least ``by``, and not below 0.9 ``channels``: how the
    MobileNets round."""
    nearest = max(by, int(channels + by / 2) // by * by)
    return nearest if nearest >= 0.9 * channels else nearest + by


def stem_stride(stem: str) -> int:
    """Of the first convolution: 2 for ``"imagenet"``, 1 for ``"cifar"``; else raises Error."""
    if stem not in ("imagenet", "cifar"):
        raise Error(f"stem='{stem}': must be 'imagenet' or 'cifar'")
    return 2 if stem == "imagenet" else 1


def conv(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, groups: int = 1
) -> nn.Conv2d:
    """A convolution that keeps the map at stride 1; the batch norm behind it has the bias."""
    padding = kernel // 2
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)


def unit(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: type[nn.Module] | None,
) -> list[nn.Module]:
    """Convolution, batch norm, activation."""
    layers: list[nn.Module] = [
        conv(in_channels, out_channels, kernel, stride, groups=groups),
        nn.BatchNorm2d(out_channels),
    ]
    return layers if activation is None else [*layers, activation(inplace=True)]


class SqueezeExcitation(nn.Module):
    """Each channel times a factor that the means of all channels give: ``[N, C, H, W]`` as before.

    Hu et al. 2018, figure 2: mean, 1x1 convolution to ``squeezed`` channels, ``activation``, 1x1
    convolution back, ``gate`` (a function to [0, 1]). Both convolutions have a bias.
    """

    def __init__(
        self,
        channels: int,
        squeezed: int,
        *,
        activation: type[nn.Module] = nn.ReLU,
        gate: type[nn.Module] = nn.Sigmoid,
    ):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.activation = activation()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(self.expand(self.activation(self.reduce(self.pool(x)))))


def initialise(model: nn.Module, *, epsilon: float | None = None) -> None:
    """Kaiming normal for convolutions (He et al. 2015, fan out), torch's own for the rest.

    ``epsilon``: what batch norms add to the variance, where a paper says other than torch.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and epsilon is not None:
            module.eps = epsilon
