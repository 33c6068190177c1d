"""The options of discrimination-aware pruning (DCP, DKP) and of the choice by reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kernelprune.prune.checks import check_number
from kernelprune.prune.group_options import GroupOptions
from kernelprune.prune.options import (
    CoupledOptions,
    Options,
    SampleOptions,
    SeedOptions,
    option,
)

GRANULARITIES = ("channel", "kernel")


@dataclass(frozen=True, kw_only=True)
class StepOptions(SampleOptions):
    """Of greedy choices."""

    channels_per_step: float = option(
        1,
        "channels taken at once (dcp, reconstruction); the papers take one, which costs a pass "
        "over the samples for each. Of connections (dkp) so many times the layer's output "
        "channels, at least one; fractions are fine there",
        above=0,
    )

    def check_step(self, granularity: str) -> None:
        """Raises Error for a fraction of a channel."""
        step = self.channels_per_step
        if granularity == "channel" and not float(step).is_integer():
            check_number("channels_per_step", step, least=1, whole=True)


@dataclass(frozen=True, kw_only=True)
class StageOptions(StepOptions):
    """Of the stages that a network is cut into, and the classifiers at their ends."""

    losses: int | None = option(
        None,
        "auxiliary classifiers, for a model that gives scores [N, classes]; default: two or three, "
        "by depth (dcp, dkp)",
        least=0,
    )
    discrimination: float = option(
        1.0,
        "weight of their loss against the reconstruction's, the paper's lambda (dcp, dkp); 0 "
        "leaves the reconstruction alone (as ThiNet), for any outputs",
        least=0,
    )
    stage_epochs: int | None = option(
        None,
        "fine-tuning of each stage (dcp, dkp); default: one epoch, or none without discrimination",
        least=0,
    )
    stage_learning_rate: float = option(
        0.01, "its learning rate: a tenth from 40 % and a hundredth from 60 % on", least=0
    )

    def check_stages(self) -> None:
        """Raises Error for auxiliary classifiers that nobody trains."""
        if self.discrimination > 0 and self.stage_epochs is not None:
            check_number("stage_epochs", self.stage_epochs, least=1, whole=True)

    @property
    def epochs_of_a_stage(self) -> int:
        return int(self.discrimination > 0) if self.stage_epochs is None else self.stage_epochs


@dataclass(frozen=True, kw_only=True)
class DiscriminationOptions(StageOptions, GroupOptions, CoupledOptions, SeedOptions):
    """Options of ``DiscriminationAware``."""

    select_epochs: int = option(1, "training of the chosen weights after every step", least=0)
    select_learning_rate: float = option(0.01, "its learning rate", least=0)
    momentum: float = option(0.9, "of SGD, with Nesterov's correction", least=0, below=1)
    weight_decay: float = option(1e-4, "of SGD", least=0)

    def check_together(self) -> None:
        self.check_stages()

    @property
    def sgd(self) -> dict[str, Any]:
        """Arguments of ``torch.optim.SGD``, but for the rate."""
        return {
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "nesterov": self.momentum > 0,
        }


@dataclass(frozen=True, kw_only=True)
class AdaptOptions(Options):
    """DCP-Adapt: how many are taken follows from the losses."""

    adaptive: float | None = option(
        None,
        "DCP-Adapt's threshold, in place of the density (dcp, dkp); the paper has 0.001",
        above=0,
        command_line=True,
    )
