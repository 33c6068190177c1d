"""Every pruning method from the options to a checkpoint; rounds; resuming."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from kernelprune.data import load
from kernelprune.errors import Error
from kernelprune.prune import recalibrate
from kernelprune.train import (
    PruneOptions,
    Trainer,
    TrainOptions,
    fit,
    latest_checkpoint,
    load_checkpoint,
    load_model,
    prune_run,
)
from kernelprune.train.loop import torch_threads
from kernelprune.train.methods import Samples, make_method

QUICK = PruneOptions(
    density=0.5, sparsify_epochs=0.5, finetune_epochs=1.0, samples=64, channels_per_step=4
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    options = TrainOptions(
        dataset="digits", model_options={"width": 0.25}, epochs=1.0, batch_size=32, limit=128,
        threads=1, precision="float32",
    )  # fmt: skip
    fit(options, folder)
    return folder


def kept_weights(folder: Path, linear: bool = False) -> dict[str, torch.Tensor]:
    """bool [O, I] by convolution but the first, and with ``linear`` by linear layer, of the model
    in a checkpoint."""
    model, _ = load_model(load_checkpoint(folder))
    dimensions = (2, 4) if linear else (4,)
    weights = {
        n: w for n, w in model.state_dict().items() if w.ndim in dimensions and w.shape[1] > 1
    }
    return {n: w.reshape(*w.shape[:2], -1).ne(0).any(2) for n, w in weights.items()}


@pytest.mark.parametrize(
    "options",
    [
        {"method": "dcp", "losses": 1},
        {"method": "dcp", "losses": 1, "coupled": True},
        {"method": "dkp", "losses": 0},
        {"method": "slimming", "recalibrate": 1},
        {"method": "reconstruction"},
        {"method": "reconstruct", "ignore": ["features.3"]},
        {"method": "taylor", "level": "channel", "scope": "layer"},
        {"method": "l1", "level": "channel", "coupled": True, "rounds": 2},
        {"method": "gradient", "scope": "layer", "ignore": ["features.3"]},
    ],
    ids=lambda options: options["method"],
)
def test_methods(trained: Path, tmp_path: Path, options: dict) -> None:
    """If this fails, a method is not reached from the options, or fine-tuning revives what went."""
    chosen = replace(QUICK, **options)
    result = prune_run(trained, chosen, tmp_path / "out")
    assert result.plan.prunable_density == pytest.approx(0.5, abs=0.02)
    kept = kept_weights(tmp_path / "out", linear=chosen.coupled)
    for row in result.plan.rows:
        if row.prunable:
            mask = kept[f"{row.name}.weight"]
            assert int(mask.sum()) == row.kept
            by_column = torch.equal(mask, mask[:1].expand_as(mask))
            assert by_column == chosen.by_channel
    assert all(kept[f"{name}.weight"].all() for name in chosen.ignore)


@pytest.mark.parametrize("method", ["synaptic", "l1"])
def test_batch_norms_are_measured_last(trained: Path, tmp_path: Path, method: str) -> None:
    """If this fails, running averages that lag behind the weights stay in the pruned network: what
    is measured before the fine-tuning is forgotten by its end."""
    options = replace(QUICK, method=method, recalibrate=0)
    lagging = prune_run(trained, options, tmp_path / "lagging").model
    measured = prune_run(trained, replace(options, recalibrate=2), tmp_path / "measured").model
    for one, other in zip(lagging.parameters(), measured.parameters(), strict=True):
        assert torch.equal(one, other)
    assert any(
        not torch.equal(one, other)
        for one, other in zip(lagging.buffers(), measured.buffers(), strict=True)
    )
    train = load_model(load_checkpoint(trained))[1]
    images = load("digits", "train").first(128)
    with torch_threads(train.threads):  # more of them add up in another order
        recalibrate(lagging, Samples(images, train, options.seed), 2)
    for name, value in lagging.state_dict().items():
        assert torch.equal(value, measured.state_dict()[name]), name


def test_scratch_keeps_the_structure_and_no_weight(trained: Path, tmp_path: Path) -> None:
    """If this fails, the control starts from trained weights, loses the structure, or is the same
    network for every seed."""
    prune_run(trained, replace(QUICK, method="l1", scope="layer"), tmp_path / "pruned")
    options = replace(QUICK, method="scratch", finetune_epochs=0.0)
    result = prune_run(tmp_path / "pruned", options, tmp_path / "start")
    assert result.plan.prunable_density == pytest.approx(0.5, abs=0.02)
    other = prune_run(tmp_path / "pruned", replace(options, seed=1), tmp_path / "other").model
    given, _ = load_model(load_checkpoint(tmp_path / "pruned"))
    for name, mask in kept_weights(tmp_path / "pruned").items():
        start = result.model.get_parameter(name)
        assert torch.equal(start.ne(0).flatten(2).any(2), mask), name
        for weight in (given.get_parameter(name), other.get_parameter(name)):
            same = (start == weight).flatten(2).all(2) & mask
            assert not same.any(), name
    longer = replace(QUICK, method="scratch", finetune_epochs=10.0)
    trained_again = prune_run(tmp_path / "pruned", longer, tmp_path / "control")
    assert trained_again.validation[1] > result.validation[1] + 0.2
    before = kept_weights(tmp_path / "pruned")
    for name, mask in kept_weights(tmp_path / "control").items():
        assert torch.equal(mask, before[name]), name
    with pytest.raises(Error, match="this one is not pruned"):
        prune_run(trained, options, tmp_path / "dense")


@pytest.mark.parametrize("method", ["synaptic", "l1"])
def test_a_density_of_one_leaves_the_budget_alone(trained: Path, method: str) -> None:
    """If this fails, a budget of multiply-adds cannot be asked for without a density."""
    model, train = load_model(load_checkpoint(trained))
    options = PruneOptions(method=method, level="channel" if method == "l1" else None)
    made = make_method(model, options, train, load("digits", "train"), None)
    made.hold(None)
    assert 0.45 < made.prune(1.0, 0.5).macs_density <= 0.5


@pytest.mark.parametrize("method", ["synaptic", "l1"])
def test_rounds_and_their_resuming(trained: Path, tmp_path: Path, monkeypatch, method: str) -> None:
    """If this fails, gradual pruning ends at another density, or differs when it is resumed."""
    options = replace(
        QUICK, method=method, density=0.2, macs=0.4, scope="layer", rounds=2, finetune_epochs=3.0
    )
    result = prune_run(trained, options, tmp_path / "whole")
    assert result.plan.prunable_density == pytest.approx(0.2, abs=0.02)
    assert result.plan.macs_density <= 0.4 and result.macs[0] <= 1.02 * 0.4 * result.macs[1]
    kept = kept_weights(tmp_path / "whole")
    assert sum(int(mask.sum()) for mask in kept.values()) == result.plan.prunable_kept
    if method == "l1":
        return
    run_epoch, seen = Trainer._run_epoch, []

    def killed(self, progress):
        seen.append(self.title)
        if seen.count("finetune") == 2:  # the second round would come in this epoch
            raise KeyboardInterrupt
        run_epoch(self, progress)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_run_epoch", killed)
        prune_run(trained, options, tmp_path / "parts")
    prune_run(trained, options, tmp_path / "parts", resume=True)
    files = [latest_checkpoint(tmp_path / name) for name in ("whole", "parts")]
    first, second = ((path / "model.safetensors").read_bytes() for path in files if path)
    assert first == second
    with pytest.raises(Error, match="for 0 epochs"):
        prune_run(trained, replace(options, finetune_epochs=0), tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "function"),
    [
        ({"method": "dcp", "losses": 0}, "prune.DiscriminationAware.prune"),
        ({"method": "reconstruct", "choice": "l1"}, "train.methods.reconstruct"),
    ],
    ids=["dcp", "reconstruct"],
)
def test_greedy_choice_is_not_made_twice(
    trained: Path, tmp_path: Path, monkeypatch, options: dict, function: str
) -> None:
    """If this fails, a resumed run chooses again (hours), or ends somewhere else."""
    chosen = replace(QUICK, **options)
    whole = prune_run(trained, chosen, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole" / "finetune", tmp_path / "parts" / "finetune")
    monkeypatch.setattr(f"kernelprune.{function}", None)
    again = prune_run(trained, chosen, tmp_path / "parts", resume=True)
    for name, mask in whole.plan.masks.items():
        assert torch.equal(again.plan.masks[name], mask)
    assert [row.kept for row in again.plan.rows] == [row.kept for row in whole.plan.rows]
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_choice_by_time_is_not_made_twice(trained: Path, tmp_path: Path, monkeypatch) -> None:
    """If this fails, a resumed run reports another choice than the one that it trains on."""

    def clock(*_, **__):
        return lambda masks: ({name: float(mask.sum()) for name, mask in masks.items()}, 1.0)

    monkeypatch.setattr("kernelprune.prune.synaptic.engine_measure", clock)
    options = replace(QUICK, latency_ms=500.0)
    whole = prune_run(trained, options, tmp_path / "whole")
    assert 0.9 < whole.plan.milliseconds / 500 <= 1
    shutil.copytree(tmp_path / "whole" / "sparsify", tmp_path / "parts" / "sparsify")
    shutil.copytree(tmp_path / "whole" / "finetune", tmp_path / "parts" / "finetune")
    monkeypatch.setattr("kernelprune.prune.SynapticStrength.plan", None)
    again = prune_run(trained, options, tmp_path / "parts", resume=True)
    for name, mask in whole.plan.masks.items():
        assert torch.equal(again.plan.masks[name], mask)
    assert [row.kept for row in again.plan.rows] == [row.kept for row in whole.plan.rows]
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_progress_of_a_greedy_choice(trained: Path, tmp_path: Path) -> None:
    """If this fails, hours pass without a sign of life."""
    with (tmp_path / "log").open("w") as stream:
        console = Console(file=stream, width=120)
        options = replace(QUICK, method="dcp", losses=1, finetune_epochs=0.0)
        prune_run(trained, options, tmp_path / "out", console=console)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0].startswith("stage 1/2: fine-tune  1/1  loss ")
    assert lines[1].startswith("stage 1/2: features.3  4/4  loss ")


def test_tensorboard_on_request(trained: Path, tmp_path: Path, monkeypatch) -> None:
    """If this fails, TensorBoard's files lack values, or are written unasked."""
    import sys
    import types

    written = []

    class Writer:
        def __init__(self, folder: str) -> None:
            written.append(folder)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, step))

        def close(self) -> None:
            written.append("closed")

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    options = TrainOptions(dataset="digits", model_options={"width": 0.125}, epochs=1, limit=128)
    fit(options)
    assert not written
    fit(replace(options, tensorboard="logs"))
    names = ["train/loss", "train/accuracy", "train/validation"]
    assert written == ["logs", *((name, 1) for name in names), "closed"]
