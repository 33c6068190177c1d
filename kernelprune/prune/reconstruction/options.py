"""The options of reconstruction."""

from __future__ import annotations

from dataclasses import dataclass

from kernelprune.prune.group_options import GroupOptions
from kernelprune.prune.options import Options, option

CHOICES = ("l1", "omp", "obs")
DEFAULT_SAMPLES = 256
_CHOICE = (
    "which connections stay: l1 (the largest kernels), omp (one after the other, the one that "
    "lowers the error most) or obs (the one that raises it least goes, one after the other; "
    "slow for wide layers)"
)


@dataclass(frozen=True, kw_only=True)
class SolverOptions(GroupOptions):
    """How the least squares of a layer are set up and solved."""

    ridge: float = option(
        0.01,
        "pull of the weights to their old values, in parts of the mean square of a layer's inputs; "
        "more for few images",
        least=1e-9,
    )
    places: int = option(
        16,
        "output places of all images that a layer learns from, for each weight of an output "
        "channel; at least 32,768, where there are so many",
        least=1,
    )
    solver_steps: int = option(
        64,
        "omp and obs choose the connections of an output channel in at most so many steps, several "
        "at once where there are more",
        least=1,
    )
    refit_whole: bool = option(
        True, "fit the layers that are kept whole too, so that they make good what others lack"
    )
    memory_mb: int = option(
        2048, "megabytes for maps and equations; fewer images are used where maps are large",
        least=64,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ChoiceOptions(Options):
    """``ReconstructionOptions.method``, by the name that leaves "method" to a list of all."""

    choice: str = option("omp", f"with method reconstruct, {_CHOICE}", choices=CHOICES,
                         command_line=True)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ReconstructionOptions(SolverOptions):
    """Options of ``reconstruct``."""

    method: str = option("omp", _CHOICE, choices=CHOICES)
    samples: int = option(DEFAULT_SAMPLES, "images to fit to, at most", least=1)
