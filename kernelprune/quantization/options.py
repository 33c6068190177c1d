"""The options of quantisation after training."""

from __future__ import annotations

from dataclasses import dataclass

from kernelprune.prune.options import Options, option

METHODS = ("mse", "minmax", "percentile")


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(Options):
    """Options of ``quantize``."""

    method: str = option(
        "mse",
        "how the range of a value is found: mse (least squared error), minmax (all that was seen) "
        "or percentile",
        choices=METHODS,
        command_line=True,
    )
    percentile: float = option(
        99.99,
        "percent of the numbers that the range holds, with method percentile",
        above=50,
        most=100,
        command_line=True,
    )
    per_channel: bool = option(
        True, "one scale for each output channel of a layer's weights, else one for all"
    )
    bias_correction: bool = option(True, "move the biases so that no output channel's mean moves")
    rounding: str = option(
        "nearest",
        "weights to the nearest whole number, or learned: up or down as changes the layer's output "
        "least, which takes minutes for a large network",
        choices=("nearest", "learned"),
        command_line=True,
    )
    equalize: bool = option(
        False,
        "first scale channels between layers, where that is exact, so that one scale suits all",
        command_line=True,
    )
    samples: int = option(512, "images to measure on, at most", least=1, command_line=True)
