"""The rows of the tables of accuracy: what is trained, and how it is pruned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kernelprune.train import PruneOptions, TrainOptions


@dataclass(frozen=True)
class Row:
    """``candidates`` differ in one setting; the validation images choose one of them. ``control``:
    also train the chosen structure from new start weights, for as long as everything before took.
    """

    train: TrainOptions
    candidates: tuple[PruneOptions, ...]
    control: bool = False


_TRAIN = TrainOptions(dataset="fashion-mnist", epochs=20.0)
_PRUNE = PruneOptions(sparsify_epochs=5.0, finetune_epochs=15.0)
_GREEDY = replace(_PRUNE, samples=10000, channels_per_step=4, stage_epochs=2)


def _learning_rates(options: PruneOptions) -> tuple[PruneOptions, ...]:
    return tuple(replace(options, finetune_learning_rate=rate) for rate in (0.02, 0.05, 0.1))


def _penalties(options: PruneOptions) -> tuple[PruneOptions, ...]:
    return tuple(replace(options, penalty=penalty) for penalty in (1e-5, 3e-5, 1e-4, 3e-4))


def _connections(model: str, densities: Sequence[float], **options: object) -> dict[str, Row]:
    """Synaptic Strength and the indicators that its paper compares with, at equal densities."""
    train = replace(_TRAIN, model=model, model_options=dict(options))
    rows = {}
    for density in densities:
        synaptic = replace(_PRUNE, method="synaptic", density=density)
        rows[f"{model}-synaptic-{density}"] = Row(train, _penalties(synaptic), control=True)
        for method in ("l1", "l2", "taylor", "gradient", "random"):
            # The same fine-tuning as Synaptic Strength has with its sparsifying.
            plain = replace(
                _PRUNE, method=method, density=density, finetune_epochs=20.0,
                scope="global-normalised", samples=10000,
            )  # fmt: skip
            rows[f"{model}-{method}-{density}"] = Row(train, _learning_rates(plain))
    return rows


def _scopes(model: str, density: float) -> dict[str, Row]:
    """Which comparison of strengths is best."""
    train = replace(_TRAIN, model=model)
    return {
        f"{model}-scope-{scope}-{density}": Row(
            train, _penalties(replace(_PRUNE, density=density, scope=scope))
        )
        for scope in ("global", "global-normalised", "layer")
    }


def _channels(model: str, kept: float, **options: object) -> dict[str, Row]:
    """DCP, its adaptive form, and the channel baselines of its paper; one recipe for all, since a
    greedy choice is dear."""
    train = replace(_TRAIN, model=model, model_options=dict(options))
    rows = {
        f"{model}-dcp-{kept}": Row(
            train, (replace(_GREEDY, method="dcp", density=kept),), control=True
        ),
        f"{model}-dcp-adapt": Row(train, (replace(_GREEDY, method="dcp", adaptive=1e-3),)),
    }
    for method in ("reconstruction", "slimming", "l1", "taylor", "random"):
        level = "channel"
        plain = replace(_GREEDY, method=method, level=level, density=kept, scope="layer")
        rows[f"{model}-channel-{method}-{kept}"] = Row(train, (plain,))
    return rows


def _lambdas() -> dict[str, Row]:
    """The weight of the discrimination, before any fine-tuning, as in the paper's table."""
    train = replace(_TRAIN, model="resnet20")
    plain = replace(_GREEDY, method="dcp", density=0.7, finetune_epochs=0.0)
    return {
        f"resnet20-lambda-{weight}": Row(train, (replace(plain, discrimination=weight),))
        for weight in (0.0, 0.01, 0.1, 1.0)
    }


def _savings() -> dict[str, Row]:
    """What fewer images and more channels at once cost."""
    train = replace(_TRAIN, model="resnet20")
    plain = replace(_GREEDY, method="dcp", density=0.5)
    rows = {}
    for samples in (1000, 5000, 20000):
        for at_once in (1, 4, 8):
            options = replace(plain, samples=samples, channels_per_step=at_once)
            rows[f"resnet20-dcp-{samples}-images-{at_once}-at-once"] = Row(train, (options,))
    return rows


ROWS: dict[str, Row] = {
    **_connections("vgg_small", (0.1, 0.05, 0.02)),
    **_connections("resnet20", (0.2, 0.1)),
    **_connections("densenet40", (0.1,)),
    **_scopes("vgg_small", 0.1),
    **_channels("vgg16", 0.5, width=0.5),
    **_channels("resnet56", 0.5),
    **_channels("mobilenet_v1", 0.7, stem="cifar", width=0.5),
    **_channels("mobilenet_v2", 0.7, stem="cifar", width=0.5),
    "resnet20-dkp-0.33": Row(
        replace(_TRAIN, model="resnet20"), (replace(_GREEDY, method="dkp", density=0.33),)
    ),
    **_lambdas(),
    **_savings(),
}


def shortened(row: Row) -> Row:
    """The same on 8x8 digits, for seconds: to try the script out, not to report."""
    train = replace(row.train, dataset="digits", epochs=1.0, limit=256, batch_size=64, threads=1)
    short = {"sparsify_epochs": 0.5, "finetune_epochs": 0.5, "samples": 64, "stage_epochs": 1}
    return Row(train, tuple(replace(option, **short) for option in row.candidates[:2]), row.control)
