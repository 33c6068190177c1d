"""The rows of the tables of accuracy: what is trained, and how it is pruned.

A network sees 15,000 of the training images (DenseNet 6,000) and trains for the same number of
epochs in all, whatever the method, so that a table of them takes hours on two processor cores and
not days.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from kernelprune.errors import Error
from kernelprune.prune.threshold import SCOPES
from kernelprune.train import PruneOptions, TrainOptions


@dataclass(frozen=True)
class Row:
    """Of ``candidates`` the validation images choose one, with the first seed. ``control``:
    also train the chosen structure from new start weights, for as long as everything before took.
    ``fit``: also the accuracy of the pruned networks on the images that were trained with, and on
    as many other training images, which needs a limit of those.
    """

    train: TrainOptions
    candidates: tuple[PruneOptions, ...]
    control: bool = False
    fit: bool = False

    def __post_init__(self) -> None:
        if self.fit and self.train.limit is None:
            raise Error("fit: without a limit there are no images that were not trained with")


@dataclass(frozen=True)
class Network:
    """A network of the tables.

    Attributes:
        penalty: Of the strengths, from the "settings" rows, as the next two.
        strength_rate: Learning rate of the fine-tuning after them.
        scopes: That are tried with the strengths.
        criteria_scopes: That are tried with the criteria that have a choice.
        recalibrate: Batches to measure the batch norms with in the end.
        images: Of the training images.
    """

    model: str
    options: dict[str, Any]
    penalty: float
    strength_rate: float = 0.02  # what a penalty has made small is moved further by the same step
    scopes: tuple[str, ...] = ("global", "global-normalised")
    criteria_scopes: tuple[str, ...] = ("global", "global-normalised")
    recalibrate: int = 0
    images: int = 15000

    def train(self, epochs: float) -> TrainOptions:
        return TrainOptions(
            model=self.model, model_options=self.options, epochs=epochs,
            batch_size=64, learning_rate=0.1, limit=self.images, threads=1,
        )  # fmt: skip

    def prune(self, method: str, **more: Any) -> PruneOptions:
        return PruneOptions(
            method=method, penalty=self.penalty, sparsify_epochs=_SPARSIFY,
            sparsify_learning_rate=0.1, finetune_epochs=_FINETUNE,
            finetune_learning_rate=self.strength_rate if method == "synaptic" else 0.05,
            **{"recalibrate": self.recalibrate, **more},
        )  # fmt: skip


# Epochs: methods with a training of their own before pruning start from a network that was trained
# for so much less.
_DENSE, _SPARSIFY, _FINETUNE = 8.0, 6.0, 4.0
_SAMPLES = 2000  # that criteria look at which need gradients
_BATCHES = 20  # for batch norms, where they are measured in the end
_GREEDY_SAMPLES = 500  # at each step of a greedy choice
_DENSITIES = (0.2, 0.1, 0.05, 0.04)

_VGG = Network("vgg16", {"width": 0.25}, penalty=3e-4)
_RESNET = Network("resnet20", {"width": 0.5}, penalty=1e-3)
_DENSENET = Network(
    "densenet40", {"depth": 16, "growth": 8}, penalty=1e-3, strength_rate=0.05, scopes=SCOPES,
    criteria_scopes=("global-normalised", "layer"),  # raw norms lose it
    recalibrate=_BATCHES, images=6000,
)  # fmt: skip


def _shared_out(options: PruneOptions, finetune: float, rate: float, **more: Any) -> PruneOptions:
    """So many epochs of fine-tuning; what is left of both goes to the penalty."""
    return replace(
        options, sparsify_epochs=_SPARSIFY + _FINETUNE - finetune, finetune_epochs=finetune,
        finetune_learning_rate=rate, **more,
    )  # fmt: skip


def _settings(network: Network, density: float) -> dict[str, Row]:
    """Penalty and schedule of Synaptic Strength, learning rate of the criteria."""
    train, shorter = network.train(_DENSE), network.train(_DENSE - _SPARSIFY)
    synaptic = network.prune("synaptic", density=density, scope="global")
    l1 = network.prune("l1", density=density, scope="global-normalised", samples=_SAMPLES)
    name = f"{network.model}-settings-{{}}-{density}".format
    penalties = [replace(synaptic, penalty=penalty) for penalty in (3e-5, 1e-4, 3e-4, 1e-3)]
    rates = [replace(l1, finetune_learning_rate=rate) for rate in (0.02, 0.05)]
    half = (_SPARSIFY + _FINETUNE) / 2
    schedules = [
        _shared_out(synaptic, epochs, rate) for epochs in (_FINETUNE, half) for rate in (0.02, 0.05)
    ]
    # Less time for the penalty, or more of it.
    finer = [
        _shared_out(synaptic, epochs, rate, penalty=factor * network.penalty)
        for factor, epochs, rate in (
            (1, 6.0, 0.05), (1, 5.0, 0.1), (5 / 3, 5.0, 0.05), (5 / 3, 6.0, 0.1),
        )
    ]  # fmt: skip
    return {
        name("finer"): Row(shorter, tuple(finer)),
        name("penalty"): Row(shorter, tuple(penalties)),
        name("learning-rate"): Row(train, tuple(rates)),
        name("schedule"): Row(shorter, tuple(schedules)),
    }


def _scope_settings(network: Network, density: float) -> dict[str, Row]:
    """Scope, learning rate of the fine-tuning, and batch norms measured in the end or not."""
    options = network.prune("synaptic", density=density)
    candidates = [
        replace(options, scope=scope, finetune_learning_rate=rate, recalibrate=batches)
        for scope, rate, batches in (
            ("global-normalised", 0.02, 0), ("global-normalised", 0.02, _BATCHES),
            ("layer", 0.02, _BATCHES), ("layer", 0.05, 0),
        )
    ]  # fmt: skip
    name = f"{network.model}-settings-scope-{density}"
    return {name: Row(network.train(_DENSE - _SPARSIFY), tuple(candidates))}


def _batch_norm_settings(network: Network, density: float) -> dict[str, Row]:
    """Batch norms measured in the end or not: the schedule of the tables, both better scopes, and
    the schedule that is best without."""
    options = network.prune("synaptic", density=density)
    half = (_SPARSIFY + _FINETUNE) / 2
    candidates = [
        _shared_out(options, epochs, rate, scope=scope, recalibrate=batches)
        for scope, epochs, rate, batches in (
            ("global", _FINETUNE, 0.02, _BATCHES), ("global-normalised", _FINETUNE, 0.02, _BATCHES),
            ("global", half, 0.05, 0), ("global", half, 0.05, _BATCHES),
        )
    ]  # fmt: skip
    name = f"{network.model}-settings-batch-norms-{density}"
    return {name: Row(network.train(_DENSE - _SPARSIFY), tuple(candidates))}


def _criteria_settings(network: Network, density: float) -> dict[str, Row]:
    """The criteria with the scope and the batch norms that suit a DenseNet."""
    candidates = [
        network.prune(
            method, density=density, samples=_SAMPLES, scope=scope, recalibrate=_BATCHES
        )
        for method, scope in (
            ("l1", "global-normalised"), ("l1", "layer"), ("l2", "layer"),
            ("taylor", "layer"), ("random", "layer"),
        )
    ]  # fmt: skip
    name = f"{network.model}-settings-criteria-{density}"
    return {name: Row(network.train(_DENSE), tuple(candidates))}


def _connections(network: Network, densities: Iterable[float]) -> dict[str, Row]:
    """Synaptic Strength and the indicators that its paper compares with, at equal densities; each
    with the scope that suits it."""
    train, shorter = network.train(_DENSE), network.train(_DENSE - _SPARSIFY)
    rows = {}
    for density in densities:
        name = f"{network.model}-{{}}-{density}".format
        for method in ("synaptic", "l1", "l2", "taylor", "random"):
            options = network.prune(method, density=density, samples=_SAMPLES)
            scopes = {"synaptic": network.scopes, "random": ("layer",)}.get(
                method, network.criteria_scopes
            )
            candidates = tuple(replace(options, scope=scope) for scope in scopes)
            rows[name(method)] = Row(shorter if method == "synaptic" else train, candidates)
        rows[name("dkp")] = Row(
            train,
            (
                network.prune(
                    "dkp", density=density, losses=1, samples=_GREEDY_SAMPLES,
                    channels_per_step=5 * density,
                ),
            ),
        )  # fmt: skip
    return rows


def _half_width(network: Network, density: float) -> dict[str, Row]:
    """Whether the width is what bounds the accuracy at a low density, with the penalty of the
    narrower network and with the default, which goes by the size."""
    wider = replace(network, options={"width": 0.5})
    name = f"{network.model}-half-width-{{}}-{density}".format
    l1 = wider.prune("l1", density=density, scope="global-normalised")
    synaptic = wider.prune("synaptic", density=density, scope="global")
    return {
        name("synaptic"): Row(wider.train(_DENSE - _SPARSIFY), (synaptic,)),
        name("default-penalty"): Row(
            wider.train(_DENSE - _SPARSIFY), (replace(synaptic, penalty=None),)
        ),
        name("l1"): Row(wider.train(_DENSE), (l1,)),
        name("nothing"): _nothing_cut(wider),
    }


def _nothing_cut(network: Network) -> Row:
    """The unpruned network, for as many epochs as the pruned ones have in all."""
    return Row(network.train(_DENSE), (network.prune("l1", density=1.0),), fit=True)


def _gap(network: Network, density: float) -> dict[str, Row]:
    """What keeps a network at this density below the unpruned one: the penalty alone, what is cut,
    or the epochs, after the cut and in all."""
    train, shorter = network.train(_DENSE), network.train(_DENSE - _SPARSIFY)
    synaptic = network.prune("synaptic", density=density, scope="global")
    l1 = network.prune("l1", density=density, scope="global-normalised")
    name = f"{network.model}-gap-{{}}".format
    rows = {
        name("nothing"): _nothing_cut(network),
        name("penalty"): Row(shorter, (replace(synaptic, density=1.0),), fit=True),
    }
    for kept in (2.5 * density, 1.5 * density, density):
        rows[name(f"kept-{kept:g}")] = Row(shorter, (replace(synaptic, density=kept),), fit=True)
    longer = replace(synaptic, finetune_epochs=_FINETUNE + 5)
    rows[name("longer-fine-tuning")] = Row(shorter, (longer,), fit=True)
    for method, row in {
        "nothing": rows[name("nothing")],
        "synaptic": Row(shorter, (synaptic,)),
        "l1": Row(train, (l1,)),
    }.items():
        rows[name(f"twice-the-epochs-{method}")] = _twice(row)
    return rows


def _twice(row: Row) -> Row:
    """The same for twice the epochs."""
    candidates = tuple(
        replace(
            options, sparsify_epochs=2 * options.sparsify_epochs,
            finetune_epochs=2 * options.finetune_epochs,
        )
        for options in row.candidates
    )  # fmt: skip
    train = replace(row.train, epochs=2 * row.train.epochs)
    return replace(row, train=train, candidates=candidates, fit=True)


def _scopes(network: Network, density: float) -> dict[str, Row]:
    """Which comparison of strengths is best, with and without a limit on the multiply-adds."""
    train = network.train(_DENSE - _SPARSIFY)
    rows = {}
    for scope in SCOPES:
        options = network.prune("synaptic", density=density, scope=scope)
        name = f"{network.model}-scope-{scope}-{{}}-{density}".format
        rows[name("density")] = Row(train, (options,))
        rows[name("macs")] = Row(train, (replace(options, macs=density),))
    return rows


def _greedy(network: Network, **more: Any) -> PruneOptions:
    return network.prune("dcp", samples=_GREEDY_SAMPLES, channels_per_step=4, **more)


def _channels(network: Network, kept: float) -> dict[str, Row]:
    """DCP and the channel baselines of its paper, and the structure trained from scratch."""
    train, shorter = network.train(_DENSE), network.train(_DENSE - _SPARSIFY)
    greedy = _greedy(network, density=kept)
    name = f"{network.model}-channels-{{}}-{kept}".format
    rows = {name("dcp"): Row(train, (greedy,), control=True)}
    for method in ("reconstruction", "slimming", "l1", "random"):
        options = replace(greedy, method=method, level="channel", scope="layer")
        if method == "slimming":
            options = replace(options, scope="global")
        rows[name(method)] = Row(shorter if method == "slimming" else train, (options,))
    return rows


def _adaptive(network: Network) -> dict[str, Row]:
    """DCP-Adapt: where a layer stops by itself."""
    return {
        f"{network.model}-channels-adaptive-{epsilon}": Row(
            network.train(_DENSE), (_greedy(network, adaptive=epsilon),)
        )
        for epsilon in (0.1, 0.01, 0.001)
    }


def _lambdas(network: Network) -> dict[str, Row]:
    """The weight of the discrimination, before any fine-tuning, as in the paper's table."""
    plain = replace(_greedy(network, density=0.7), finetune_epochs=0.0)
    return {
        f"{network.model}-lambda-{weight}": Row(
            network.train(_DENSE), (replace(plain, discrimination=weight),)
        )
        for weight in (0.0, 0.01, 0.1, 1.0)
    }


def _savings(network: Network) -> dict[str, Row]:
    """What fewer images and more channels at once cost."""
    rows = {}
    for samples in (125, 500, 2000):
        for at_once in (1, 4, 16):
            options = replace(
                _greedy(network, density=0.5), samples=samples, channels_per_step=at_once
            )
            name = f"{network.model}-dcp-{samples}-images-{at_once}-at-once"
            rows[name] = Row(network.train(_DENSE), (options,))
    return rows


ROWS: dict[str, Row] = {
    **_settings(_VGG, 0.04),
    **_settings(_RESNET, 0.1),
    **_scope_settings(_DENSENET, 0.04),
    **_batch_norm_settings(_VGG, 0.04),
    **_criteria_settings(_VGG, 0.04),
    **_criteria_settings(_RESNET, 0.04),
    **_connections(_VGG, _DENSITIES),
    **_half_width(_VGG, 0.04),
    **_gap(_VGG, 0.04),
    **_connections(_RESNET, _DENSITIES),
    **_connections(_DENSENET, _DENSITIES),
    **_scopes(_VGG, 0.1),
    **_scopes(_RESNET, 0.1),
    **_scopes(_DENSENET, 0.04),
    **_channels(_VGG, 0.7),
    **_channels(_VGG, 0.5),
    **_channels(_RESNET, 0.7),
    **_channels(_RESNET, 0.5),
    **_adaptive(_VGG),
    **_adaptive(_RESNET),
    **_lambdas(_RESNET),
    **_savings(_RESNET),
}


def shortened(row: Row) -> Row:
    """The same on 8x8 digits, for seconds: to try the script out, not to report."""
    train = replace(row.train, dataset="digits", epochs=1.0, limit=256, batch_size=64, threads=1)
    short = {"sparsify_epochs": 0.5, "finetune_epochs": 0.5, "samples": 64, "stage_epochs": 1}
    candidates = tuple(replace(option, **short) for option in row.candidates[:2])
    return replace(row, train=train, candidates=candidates)
