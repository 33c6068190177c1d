"""Every option of training, pruning and export, for the API and for the command line alike."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kernelprune.errors import Error
from kernelprune.prune.threshold import SCOPES

SCHEDULES = ("one-cycle", "cosine", "step", "constant")
PRECISIONS = ("auto", "float32", "bfloat16")
METHODS = (
    "synaptic", "l1", "l2", "random", "taylor", "gradient", "slimming", "reconstruction",
    "dcp", "dkp", "scratch",
)  # fmt: skip
LEVELS = ("connection", "channel")
GREEDY = ("dcp", "dkp")  # methods that choose layer by layer, on data
_ONE_LEVEL = {
    "synaptic": "connection",
    "slimming": "channel",
    "reconstruction": "channel",
    "dcp": "channel",
    "dkp": "connection",
}


# The methods that look at an option; an option that is not here is for all.
_PENALISED = ("synaptic", "slimming")
_SCORED = tuple(m for m in METHODS if m not in (*GREEDY, "reconstruction", "scratch"))
_LOOKED_AT_BY = {
    "density": tuple(m for m in METHODS if m != "scratch"),
    "scope": _SCORED,
    "latency_batch": ("synaptic",),
    "latency_threads": ("synaptic",),
    "penalty": _PENALISED,
    "sparsify_epochs": _PENALISED,
    "sparsify_learning_rate": _PENALISED,
    "samples": ("taylor", "gradient", "reconstruction", *GREEDY),
    "channels_per_step": ("reconstruction", *GREEDY),
    "losses": GREEDY,
    "discrimination": GREEDY,
    "stage_epochs": GREEDY,
    "stage_learning_rate": GREEDY,
}


def check_looked_at(method: str, names: Iterable[str]) -> None:
    """Raises Error where ``method`` has no use for one of the options that somebody chose."""
    for name in names:
        methods = _LOOKED_AT_BY.get(name, METHODS)
        _check(
            method in methods,
            f"method {method!r} does not look at {name}; these do: {', '.join(methods)}",
        )


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise Error(message)


def _check_finite(options: Any, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        _check(value is None or math.isfinite(value), f"{name} must be finite, got {value}")


# Larger whole numbers have no use, and overflow somewhere.
_MOST = 1 << 53
_MOST_THREADS = 4096
_KINDS: dict[str, Any] = {
    "float": (int, float),
    "int": int,
    "str": str,
    "bool": bool,
    "list": (list, tuple),
    "dict": dict,
}


def _check_types(options: Any) -> None:
    """Every field has a value of its kind: what a file says, or a program, must not end in a
    traceback from deep inside. Numbers of numpy become Python's, which JSON knows."""
    for entry in dataclasses.fields(options):
        value = getattr(options, entry.name)
        if isinstance(value, np.generic):
            value = value.item()
            object.__setattr__(options, entry.name, value)
        main, _, rest = str(entry.type).partition(" | ")
        kind = _KINDS[main.partition("[")[0]]
        is_none = value is None and rest == "None"
        swapped = isinstance(value, bool) and kind is not bool  # True is an int in Python
        _check_size(entry.name, value)
        if swapped or not (is_none or isinstance(value, kind)):
            raise Error(f"{entry.name}: {short(value)} is not of the kind {entry.type}")
        if isinstance(value, (list, tuple)):
            for part in value:
                _check_size(entry.name, part)
        for name, part in value.items() if isinstance(value, dict) else ():
            _check(isinstance(name, str), f"{entry.name}: {short(name)} is not a name")
            scalar = part is None or isinstance(part, (bool, int, float, str))
            _check(scalar, f"{entry.name}: {name} must be a number or a word")
            _check_size(f"{entry.name}: {name}", part)
            finite = not isinstance(part, float) or math.isfinite(part)
            _check(finite, f"{entry.name}: {name} must be finite, got {part}")


def short(value: Any) -> str:
    """For a message; what a file holds may be long, or have more digits than Python prints."""
    try:
        return repr(value)[:60]
    except (ValueError, RecursionError):
        return f"a large {type(value).__name__}"


def _check_size(name: str, value: Any) -> None:
    if isinstance(value, int):
        _check(abs(value) < _MOST, f"{name} must be below 2^53 in size")
    if isinstance(value, str):
        _check("\0" not in value, f"{name} has a zero byte in it")


def from_dict(cls: type, values: Any) -> Any:
    """An options object from a dictionary; unknown keys are refused, with the nearest known one."""
    if not isinstance(values, dict):
        raise Error(f"{cls.__name__} are {type(values).__name__}, not names and values")
    known = [entry.name for entry in dataclasses.fields(cls)]
    for name in values:
        if name not in known:
            nearest = difflib.get_close_matches(short(name), known, 1, 0.0)[0]
            raise Error(f"{cls.__name__} has no option {short(name)}; did you mean {nearest!r}?")
    return cls(**values)


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Attributes:
        model: Name for :func:`kernelprune.models.create`.
        model_options: More arguments for it, such as ``{"width": 0.5}``.
        dataset: Name for :func:`kernelprune.data.load`.
        data_path: Folder with the data set's files; None searches the usual places.
        epochs: Passes over the training images; 1.5 is one and a half.
        batch_size: Images per step.
        learning_rate: Its highest value.
        schedule: ``"one-cycle"`` (a fifth up, then down as a cosine), ``"cosine"``, ``"step"`` (a
            tenth at one half and a hundredth at three quarters) or ``"constant"``.
        momentum: Of SGD with Nesterov's correction.
        weight_decay: Of the convolutions' and linear weights only, not of BN and biases.
        label_smoothing: Of the cross entropy.
        augment: Random shifts and flips, where the data set allows them.
        precision: ``"bfloat16"`` computes forward and backward passes in it (the weights stay
            float32), ``"auto"`` does so where the device has instructions for it.
        device: Where to train: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``: a GPU if torch
            has one (under ``torchrun`` each process its own), else the CPU.
        threads: Of torch; None leaves its setting alone.
        seed: Of the start weights and of the batches.
        checkpoint_steps: Steps between two checkpoints; None for one at the end of each epoch.
        limit: Takes only so many training images; None takes all.
        tensorboard: Folder for TensorBoard's files, one line of values per epoch; None writes none.
    """

    model: str = "vgg_small"
    model_options: dict[str, Any] = field(default_factory=dict)
    dataset: str = "fashion-mnist"
    data_path: str | None = None
    epochs: float = 10.0
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: str = "one-cycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    augment: bool = True
    precision: str = "auto"
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    checkpoint_steps: int | None = None
    limit: int | None = None
    tensorboard: str | None = None

    def __post_init__(self) -> None:
        _check_types(self)
        _check(self.epochs > 0, f"epochs must be more than 0, got {self.epochs}")
        _check(self.batch_size > 1, f"batch_size must be at least 2, got {self.batch_size}")
        _check(self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}")
        _check(
            self.schedule in SCHEDULES,
            f"unknown schedule {self.schedule!r}; there are: {', '.join(SCHEDULES)}",
        )
        _check(
            self.precision in PRECISIONS,
            f"unknown precision {self.precision!r}; there are: {', '.join(PRECISIONS)}",
        )
        _check(0 <= self.momentum < 1, f"momentum must be in [0, 1), got {self.momentum}")
        _check(self.weight_decay >= 0, f"weight_decay must not be negative: {self.weight_decay}")
        for name in ("threads", "checkpoint_steps", "limit"):
            value = getattr(self, name)
            _check(value is None or value > 0, f"{name} must be at least 1, got {value}")
        _check(
            self.threads is None or self.threads <= _MOST_THREADS,
            f"threads must be at most {_MOST_THREADS}, got {self.threads}",
        )
        _check_finite(self, "epochs", "learning_rate", "weight_decay")
        _check(
            0 <= self.label_smoothing < 1,
            f"label_smoothing must be in [0, 1), got {self.label_smoothing}",
        )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> TrainOptions:
        return from_dict(TrainOptions, values)


@dataclass(frozen=True)
class PruneOptions:
    """How to prune a trained model.

    Attributes:
        method: ``"synaptic"`` (Synaptic Strength, Lin et al., arXiv 1811.02454), ``"dcp"`` or
            ``"dkp"`` (discrimination-aware choice of channels or connections, Zhuang et al., arXiv
            1810.11809), or a baseline: ``"l1"``, ``"l2"``, ``"random"``, ``"taylor"``,
            ``"gradient"``, ``"slimming"``, ``"reconstruction"`` (see ``kernelprune.prune``); or
            ``"scratch"``: nothing more is dropped, what a pruned network keeps is trained from new
            start weights, for ``finetune_epochs``.
        level: ``"connection"`` or ``"channel"`` (input channels, of the layers where those may go);
            only the first five baselines leave a choice, and None takes connections there.
        density: Kept connections (channels) / all of them in the pruned layers, 0..1.
        macs: At most this share of the dense network's multiply-adds is in the exported file; None
            for no limit. With a ``density`` of 1 it is the only limit.
        latency_ms: At most so many milliseconds of the engine on this machine, in place of
            ``density`` (synaptic only); None for no limit.
        latency_batch: Images that those are for.
        latency_threads: Threads of the engine for them.
        scope: How connections of different layers are compared: ``"layer"``, ``"global"``,
            ``"global-normalised"``; None takes the method's default.
        ignore: Names or patterns of layers that are kept whole.
        rounds: Prunes in so many rounds, cubically, over the first half of the fine-tuning; 1 is
            all at once before it.
        recalibrate: Batches to measure the batch norms anew with, after the fine-tuning; 0 leaves
            the running averages of the training.
        penalty: Weight of the L1 norm of the strengths (synaptic) or of the batch norms' scales
            (slimming) in the loss; None takes 0.1 / root of the number of connections (synaptic),
            or 1e-3.
        sparsify_epochs: Training with the penalty before pruning (synaptic, slimming).
        sparsify_learning_rate: Its highest learning rate.
        finetune_epochs: Training after pruning.
        finetune_learning_rate: Its highest learning rate.
        distill: Share of the fine-tuning loss that is the distance to the unpruned network's
            outputs, 0..1 (Hinton et al., arXiv 1503.02531).
        adaptive: DCP-Adapt's threshold; then ``density`` does not count (dcp, dkp).
        samples: Images that data-driven methods look at; None takes all.
        channels_per_step: Channels taken at once (dcp, reconstruction); of connections (dkp) so
            many times the layer's output channels, which may be a fraction.
        losses: Auxiliary classifiers; None for two or three, by depth (dcp, dkp).
        discrimination: Weight of their loss against the reconstruction's (dcp, dkp).
        stage_epochs: Fine-tuning of each stage (dcp, dkp).
        stage_learning_rate: Its learning rate.
        device: Where to train and choose, as for training.
        seed: Of ``"random"``, of classifiers and of the batches.
    """

    method: str = "synaptic"
    level: str | None = None
    density: float = 0.1
    macs: float | None = None
    latency_ms: float | None = None
    latency_batch: int = 1
    latency_threads: int = 1
    scope: str | None = None
    ignore: list[str] = field(default_factory=list)
    rounds: int = 1
    recalibrate: int = 20
    penalty: float | None = None
    sparsify_epochs: float = 3.0
    sparsify_learning_rate: float = 0.1
    finetune_epochs: float = 5.0
    finetune_learning_rate: float = 0.05
    distill: float = 0.0
    adaptive: float | None = None
    samples: int | None = None
    channels_per_step: float = 1
    losses: int | None = None
    discrimination: float = 1.0
    stage_epochs: int = 1
    stage_learning_rate: float = 0.01
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _check_types(self)
        _check(
            self.method in METHODS,
            f"unknown method {self.method!r}; there are: {', '.join(METHODS)}",
        )
        _check(
            self.level is None or self.level in LEVELS,
            f"unknown level {self.level!r}; there are: {', '.join(LEVELS)}",
        )
        fixed = _ONE_LEVEL.get(self.method)
        _check(
            fixed is None or self.level in (None, fixed),
            f"method {self.method!r} has no level {self.level!r}, only {fixed!r}",
        )
        _check(0 < self.density <= 1, f"density must be in (0, 1], got {self.density}")
        _check(self.macs is None or 0 < self.macs <= 1, f"macs must be in (0, 1], got {self.macs}")
        _check(self.rounds >= 1, f"rounds must be at least 1, got {self.rounds}")
        one_shot = self.method in (*GREEDY, "reconstruction", "scratch")
        _check(
            self.rounds == 1 or not one_shot,
            f"method {self.method!r} prunes once: rounds must be 1",
        )
        _check(self.macs is None or not one_shot, f"method {self.method!r} takes no limit of macs")
        fits = self.method == "synaptic" and self.macs is None and self.rounds == 1
        _check(
            self.latency_ms is None or (fits and self.latency_ms > 0),
            f"latency_ms={self.latency_ms}: above 0, for 'synaptic', without macs and rounds",
        )
        _check(
            self.adaptive is None or self.method in GREEDY,
            f"adaptive is for {' and '.join(GREEDY)}, not for {self.method!r}",
        )
        _check(
            self.scope is None or self.scope in SCOPES,
            f"unknown scope {self.scope!r}; there are: {', '.join(SCOPES)}",
        )
        _check(
            not isinstance(self.ignore, str) and all(isinstance(item, str) for item in self.ignore),
            f"ignore must be a list of names or patterns, got {self.ignore!r}",
        )
        for name in ("recalibrate", "penalty", "sparsify_epochs", "finetune_epochs", "losses",
                     "discrimination", "stage_epochs"):  # fmt: skip
            value = getattr(self, name)
            _check(value is None or value >= 0, f"{name} must not be negative, got {value}")
        _check(
            self.channels_per_step > 0,
            f"channels_per_step must be positive, got {self.channels_per_step}",
        )
        for name in ("latency_batch", "latency_threads", "samples"):
            value = getattr(self, name)
            _check(value is None or value >= 1, f"{name} must be at least 1, got {value}")
        rates = ("sparsify_learning_rate", "finetune_learning_rate", "stage_learning_rate")
        for name in (*rates, "adaptive"):
            value = getattr(self, name)
            _check(value is None or value > 0, f"{name} must be positive, got {value}")
        _check(
            self.stage_epochs > 0 or self.method not in GREEDY or not self.discrimination,
            "stage_epochs must be at least 1: the auxiliary classifiers have to be trained",
        )
        _check(
            self.method == "dkp" or float(self.channels_per_step).is_integer(),
            f"channels_per_step must be whole, got {self.channels_per_step}",
        )
        _check_finite(
            self, "penalty", "channels_per_step", "sparsify_epochs", "finetune_epochs",
            "discrimination", "adaptive", "latency_ms", *rates,
        )  # fmt: skip
        _check(0 <= self.distill <= 1, f"distill must be in [0, 1], got {self.distill}")

    @property
    def by_channel(self) -> bool:
        """Whether whole input channels go."""
        return (self.level or _ONE_LEVEL.get(self.method)) == "channel"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> PruneOptions:
        return from_dict(PruneOptions, values)


@dataclass(frozen=True)
class ExportOptions:
    """What to write.

    Attributes:
        evaluate: Notes the accuracy on the test split in the file.
    """

    evaluate: bool = True
