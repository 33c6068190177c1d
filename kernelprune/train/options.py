"""The options of training, pruning and export, for the API, recipes and the command line alike.

What a pruning method can be told is described beside it (``kernelprune/prune/*_options.py``);
``PruneOptions`` adds what is the same for all: how much goes, and the training around it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kernelprune.errors import Error
from kernelprune.prune.discrimination_options import AdaptOptions, StageOptions, StepOptions
from kernelprune.prune.group_options import GroupOptions
from kernelprune.prune.options import (
    CoupledOptions,
    Options,
    SampleOptions,
    ScopeOptions,
    SeedOptions,
    option,
)
from kernelprune.prune.reconstruction.options import ChoiceOptions, SolverOptions
from kernelprune.prune.synaptic_options import LatencyOptions, PenaltyOptions, SynapticOptions

SCHEDULES = ("one-cycle", "cosine", "step", "constant")
PRECISIONS = ("auto", "float32", "bfloat16")
LEVELS = ("connection", "channel")
_MOST_THREADS = 4096


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """How to train."""

    model: str = option("vgg_small", "name for kernelprune.models.create")
    model_options: dict[str, Any] = option({}, 'more arguments for it, such as {"width": 0.5}')
    dataset: str = option("fashion-mnist", "name for kernelprune.data.load")
    data_path: str | None = option(
        None, "folder with the data set's files; default: the usual places are searched"
    )
    epochs: float = option(10.0, "passes over the training images; 1.5 is one and a half", above=0)
    batch_size: int = option(128, "images per step", least=2)
    learning_rate: float = option(0.1, "its highest value", above=0)
    schedule: str = option(
        "one-cycle",
        "one-cycle (a fifth up, then down as a cosine), cosine, step (a tenth at one half and a "
        "hundredth at three quarters) or constant",
        choices=SCHEDULES,
    )
    momentum: float = option(0.9, "of SGD with Nesterov's correction", least=0, below=1)
    weight_decay: float = option(
        5e-4, "of the convolutions' and linear weights only, not of BN and biases", least=0
    )
    label_smoothing: float = option(0.0, "of the cross entropy", least=0, below=1)
    augment: bool = option(True, "random shifts and flips, where the data set allows them")
    precision: str = option(
        "auto",
        "bfloat16 computes forward and backward passes in it (the weights stay float32), auto does "
        "so where the device has instructions for it",
        choices=PRECISIONS,
    )
    device: str = option(
        "auto",
        "where to train: cpu, cuda, cuda:1, or auto: a GPU if torch has one (under torchrun each "
        "process its own), else the CPU",
    )
    threads: int | None = option(
        None, "of torch; default: its own setting", least=1, most=_MOST_THREADS
    )
    seed: int = option(0, "of the start weights and of the batches")
    checkpoint_steps: int | None = option(
        None, "steps between two checkpoints; default: one at the end of each epoch", least=1
    )
    limit: int | None = option(None, "takes only so many training images; default: all", least=1)
    tensorboard: str | None = option(
        None, "folder for TensorBoard's files, one line of values per epoch; default: none"
    )


@dataclass(frozen=True, kw_only=True)
class DensityOptions(Options):
    """Of all methods that drop something."""

    density: float = option(
        0.1,
        "share of the connections (channels) of the pruned layers to keep",
        above=0,
        most=1,
        command_line=True,
    )


@dataclass(frozen=True, kw_only=True)
class SparsifyOptions(Options):
    """Of the training with a penalty, before pruning."""

    sparsify_epochs: float = option(
        3.0,
        "training with the penalty before pruning (synaptic, slimming)",
        least=0,
        command_line=True,
    )
    sparsify_learning_rate: float = option(0.1, "its highest learning rate", above=0)


@dataclass(frozen=True)
class Method:
    """What ``PruneOptions`` have to know of a method: at which of the options that not all methods
    have it looks, the ``level`` if it has one only, whether it prunes in rounds (``gradual``), and
    whether it takes a limit of multiply-adds (``budget``; those that prune in rounds do)."""

    looks_at: tuple[type[Options], ...]
    level: str | None = None
    gradual: bool = True
    budget: bool = False

    @property
    def takes_macs(self) -> bool:
        return self.gradual or self.budget


_SCORED = (DensityOptions, ScopeOptions, GroupOptions, CoupledOptions)
_BY_CHANNEL = (DensityOptions, ScopeOptions, PenaltyOptions, SparsifyOptions, CoupledOptions)
_GREEDY = (DensityOptions, StageOptions, AdaptOptions)
METHODS = {
    "synaptic": Method(
        (DensityOptions, SynapticOptions, LatencyOptions, SparsifyOptions), "connection"
    ),
    "l1": Method(_SCORED),
    "l2": Method(_SCORED),
    "random": Method(_SCORED),
    "taylor": Method((*_SCORED, SampleOptions)),
    "gradient": Method((*_SCORED, SampleOptions)),
    "slimming": Method(_BY_CHANNEL, "channel"),
    "reconstruction": Method(
        (DensityOptions, StepOptions, CoupledOptions), "channel", gradual=False
    ),
    "reconstruct": Method(
        (DensityOptions, LatencyOptions, SampleOptions, ChoiceOptions, SolverOptions),
        "connection",
        gradual=False,
        budget=True,
    ),
    "dcp": Method((*_GREEDY, CoupledOptions), "channel", gradual=False),
    "dkp": Method((*_GREEDY, GroupOptions), "connection", gradual=False),
    "scratch": Method((), gradual=False),
}
GREEDY = tuple(name for name, method in METHODS.items() if StageOptions in method.looks_at)


def methods_of(name: str) -> list[str]:
    """The methods that look at an option: all, unless it is one that only some have."""
    found = [
        method
        for method, row in METHODS.items()
        if any(name in options.names() for options in row.looks_at)
    ]
    return found or list(METHODS)


def check_looked_at(method: str, names: Iterable[str]) -> None:
    """Raises Error where ``method`` has no use for one of the options that somebody chose."""
    for name in names:
        methods = methods_of(name)
        if method not in methods:
            raise Error(
                f"method {method!r} does not look at {name}; these do: {', '.join(methods)}"
            )


@dataclass(frozen=True, kw_only=True)
class MethodOptions(Options):
    """Which method prunes what."""

    method: str = option(
        "synaptic",
        "what decides: synaptic (Synaptic Strength, Lin et al., arXiv 1811.02454), dcp or dkp "
        "(discrimination-aware choice of channels or connections, Zhuang et al., arXiv "
        "1810.11809), or a baseline: l1, l2, random, taylor, gradient, slimming, reconstruction; "
        "reconstruct: what is kept is fitted to the unpruned network's outputs, which needs no "
        "labels, and with finetune_epochs 0 no training; "
        "scratch: what a pruned network keeps is trained from new weights, for finetune_epochs",
        choices=tuple(METHODS),
        command_line=True,
    )
    level: str | None = option(
        None,
        "what goes: connection or channel (input channels, of the layers where those may go), for "
        "the methods that do both; by default connections",
        choices=LEVELS,
        command_line=True,
    )


@dataclass(frozen=True, kw_only=True)
class PruneOptions(
    SeedOptions, StageOptions, AdaptOptions, SynapticOptions, SparsifyOptions, LatencyOptions,
    DensityOptions, CoupledOptions, ChoiceOptions, SolverOptions, MethodOptions,
):  # fmt: skip
    """How to prune a trained model: the options of all methods, by the names that these have, and
    what is the same for all of them."""

    macs: float | None = option(
        None,
        "keep at most this share of the dense network's multiply-adds, as exported; with a density "
        "of 1 it is the only limit",
        above=0,
        most=1,
        command_line=True,
    )
    ignore: list[str] = option(
        [], "layer, or pattern with *, that is kept whole", command_line=True
    )
    rounds: int = option(
        1,
        "prune in so many rounds, cubically, over the first half of the fine-tuning; 1 is all at "
        "once before it",
        least=1,
        command_line=True,
    )
    recalibrate: int = option(
        20,
        "batches to measure the batch norms anew with, after the fine-tuning; 0 leaves the running "
        "averages of the training",
        least=0,
    )
    finetune_epochs: float = option(5.0, "training after pruning", least=0, command_line=True)
    finetune_learning_rate: float = option(0.05, "its highest learning rate", above=0)
    distill: float = option(
        0.0,
        "share of the fine-tuning loss that is the distance to the unpruned network's outputs "
        "(Hinton et al., arXiv 1503.02531)",
        least=0,
        most=1,
    )
    device: str = option(
        "auto",
        "where to train and choose: auto (a GPU if torch has one), cpu, cuda or cuda:1",
        command_line=True,
    )

    def check_together(self) -> None:
        row = METHODS[self.method]
        if row.level is not None and self.level not in (None, row.level):
            raise Error(f"method {self.method!r} has no level {self.level!r}, only {row.level!r}")
        if self.rounds > 1 and not row.gradual:
            raise Error(f"method {self.method!r} prunes once: rounds must be 1")
        if self.macs is not None and not row.takes_macs:
            raise Error(f"method {self.method!r} takes no limit of macs")
        for name in ("latency_ms", "adaptive"):
            if getattr(self, name) is not None:
                check_looked_at(self.method, [name])
        if self.group != 1:
            check_looked_at(self.method, ["group"])
            if self.by_channel:
                raise Error(f"group={self.group}: only of connections, not of the level 'channel'")
        if self.coupled:
            check_looked_at(self.method, ["coupled"])
            if not self.by_channel:
                raise Error("coupled: only of channels, so say level='channel'")
        if self.latency_ms is not None and (self.macs is not None or self.rounds > 1):
            raise Error(f"latency_ms={self.latency_ms}: only without macs and rounds")
        if self.method in GREEDY:
            self.check_stages()
        self.check_step("kernel" if self.method == "dkp" else "channel")

    @property
    def by_channel(self) -> bool:
        """Whether whole input channels go."""
        return (self.level or METHODS[self.method].level) == "channel"


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """What to write."""

    evaluate: bool = option(True, "notes the accuracy on the test split in the file")
