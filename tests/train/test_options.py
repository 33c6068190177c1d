"""Options and learning rates."""

from __future__ import annotations

import pytest

from kernelprune.errors import Error
from kernelprune.train import PruneOptions, TrainOptions
from kernelprune.train.options import SCHEDULES
from kernelprune.train.schedule import learning_rate


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0.0},
        {"batch_size": 1},
        {"learning_rate": 0.0},
        {"schedule": "sawtooth"},
        {"precision": "float16"},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"threads": 0},
        {"checkpoint_steps": 0},
        {"limit": 0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_train_options(wrong: dict) -> None:
    """If this fails, a wrong option is found after the training, or never."""
    with pytest.raises(Error, match=next(iter(wrong)).split("_")[0]):
        TrainOptions(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "magic"},
        {"density": 0.0},
        {"density": 1.1},
        {"macs": 0.0},
        {"penalty": -1.0},
        {"sparsify_epochs": -1.0},
        {"finetune_epochs": -1.0},
        {"distill": 1.5},
        {"level": "filter"},
        {"method": "synaptic", "level": "channel"},
        {"method": "slimming", "level": "connection"},
        {"rounds": 0},
        {"method": "dcp", "rounds": 2},
        {"method": "dkp", "macs": 0.5},
        {"adaptive": 0.1},
        {"recalibrate": -1},
        {"channels_per_step": 0.0},
        {"method": "dcp", "channels_per_step": 1.5},
        {"latency_ms": 0.0},
        {"latency_ms": 1.0, "method": "l1"},
        {"latency_ms": 1.0, "macs": 0.5},
    ],
    ids=str,
)
def test_wrong_prune_options(wrong: dict) -> None:
    """If this fails, a wrong option is found after the training, or never."""
    with pytest.raises(Error):
        PruneOptions(**wrong)


def test_options_survive_json() -> None:
    """If this fails, a checkpoint cannot tell how it was made."""
    train = TrainOptions(epochs=1.5, model_options={"width": 0.5})
    assert TrainOptions.from_dict(train.to_dict()) == train
    prune = PruneOptions(method="l1", macs=0.2)
    assert PruneOptions.from_dict(prune.to_dict()) == prune
    assert PruneOptions(method="dcp").by_channel and not PruneOptions(method="dkp").by_channel
    assert PruneOptions(method="l1", level="channel").by_channel
    with pytest.raises(Error, match="colour"):
        TrainOptions.from_dict({"colour": "red"})


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 100])
def test_learning_rate_stays_in_bounds(schedule: str, total: int) -> None:
    """If this fails, a step is taken at a rate of zero, or above the one asked for."""
    rates = [learning_rate(schedule, 0.1, step, total) for step in range(total)]
    assert all(0 < rate <= 0.1 for rate in rates)


def test_shapes_of_the_schedules() -> None:
    """If this fails, a schedule is not what its name says."""
    one_cycle = [learning_rate("one-cycle", 1.0, step, 1000) for step in range(1000)]
    top = one_cycle.index(max(one_cycle))
    assert 150 < top < 250 and one_cycle[0] < 0.15 and one_cycle[-1] < 0.001
    assert one_cycle[:top] == sorted(one_cycle[:top])
    assert one_cycle[top:] == sorted(one_cycle[top:], reverse=True)
    cosine = [learning_rate("cosine", 1.0, step, 1000) for step in range(1000)]
    assert cosine == sorted(cosine, reverse=True) and abs(cosine[500] - 0.5) < 0.01
    steps = {round(learning_rate("step", 1.0, step, 1000), 6) for step in range(1000)}
    assert steps == {1.0, 0.1, 0.01}
    assert {learning_rate("constant", 1.0, step, 10) for step in range(10)} == {1.0}
