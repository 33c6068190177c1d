"""The training loop: learns, repeats itself exactly, resumes exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from kernelprune import models
from kernelprune.data import load
from kernelprune.errors import Error
from kernelprune.train import (
    Trainer,
    TrainOptions,
    accuracy,
    fit,
    latest_checkpoint,
    load_checkpoint,
    load_model,
)
from kernelprune.train.loop import make_model

OPTIONS = TrainOptions(
    dataset="digits",
    model_options={"width": 0.25},
    epochs=2.0,
    batch_size=64,
    learning_rate=0.05,
    threads=1,
    seed=4,
)


def weights(folder: Path) -> bytes:
    """The bytes of the newest checkpoint's weights."""
    path = latest_checkpoint(folder)
    assert path is not None
    return (path / "model.safetensors").read_bytes()


def test_learns_digits(tmp_path: Path) -> None:
    """If this fails, the loop does not train."""
    result = fit(replace(OPTIONS, epochs=8.0), tmp_path)
    assert result.validation is not None and result.validation > 0.9
    assert not result.model.training
    model, options = load_model(load_checkpoint(tmp_path))
    assert options.dataset == "digits"
    assert accuracy(model, load("digits", "validation")) == result.validation


def test_same_options_same_weights(tmp_path: Path) -> None:
    """If this fails, a result cannot be reproduced."""
    for name in ("one", "two"):
        torch.manual_seed(len(name))  # must not matter
        fit(replace(OPTIONS, epochs=1.0), tmp_path / name)
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    fit(replace(OPTIONS, epochs=1.0, seed=5), tmp_path / "three")
    assert weights(tmp_path / "one") != weights(tmp_path / "three")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_interrupted_training_ends_with_the_same_weights(tmp_path: Path, precision: str) -> None:
    """If this fails, resuming changes the result (momentum, order of images, learning rate)."""
    options = replace(OPTIONS, precision=precision, epochs=1.5, checkpoint_steps=4)
    fit(options, tmp_path / "whole")

    torch.manual_seed(options.seed)
    model = models.create("vgg_small", num_classes=10, in_channels=1, width=0.25)
    trainer = Trainer(
        model,
        load("digits"),
        options,
        folder=tmp_path / "parts",
        extra_state={"num_classes": 10, "shape": [1, 8, 8], "kind": "train"},
    )
    genuine = trainer._train_step

    def interrupted(images: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
        if trainer.step == 10:
            raise KeyboardInterrupt
        return genuine(images, labels)

    trainer._train_step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert load_checkpoint(tmp_path / "parts").step == 8
    fit(options, tmp_path / "parts", resume=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")


SCRIPT = """
    import sys
    from kernelprune.train import TrainOptions, fit
    options = TrainOptions.from_dict({options})
    fit(options, sys.argv[1], resume=True)
"""


def test_killed_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    """If this fails, a training killed by the system cannot go on, or ends somewhere else."""
    options = replace(OPTIONS, epochs=3.0, checkpoint_steps=1)
    fit(replace(options, checkpoint_steps=None), tmp_path / "whole")
    script = textwrap.dedent(SCRIPT).format(options=options.to_dict())
    command = [sys.executable, "-c", script, str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    reached = -1
    for delay in (0.0, 0.013):
        process = subprocess.Popen(command, env=environment)
        # Killed at whatever it is doing some steps on: computing, or writing a checkpoint.
        target, ends = reached + 5, time.monotonic() + 120
        while process.poll() is None and time.monotonic() < ends:
            path = latest_checkpoint(tmp_path / "killed")
            if path is not None and int(path.name.split("-")[1]) >= target:
                break
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the training ended before it was killed"
        reached = load_checkpoint(tmp_path / "killed").step
        assert 0 < reached < 57
    assert subprocess.run(command, env=environment).returncode == 0
    assert load_checkpoint(tmp_path / "killed").step == 57
    assert weights(tmp_path / "whole") == weights(tmp_path / "killed")


def test_resume_of_a_finished_training_changes_nothing(tmp_path: Path) -> None:
    """If this fails, one resume too many spoils the weights."""
    options = replace(OPTIONS, epochs=0.5)
    first = fit(options, tmp_path)
    before = weights(tmp_path)
    second = fit(options, tmp_path, resume=True)
    assert weights(tmp_path) == before
    assert second.validation == first.validation


def test_folder_in_use_is_refused(tmp_path: Path) -> None:
    """If this fails, a second training overwrites the first."""
    fit(replace(OPTIONS, epochs=0.2), tmp_path)
    with pytest.raises(Error, match="--resume"):
        fit(replace(OPTIONS, epochs=0.2), tmp_path)
    with pytest.raises(Error, match="learning_rate"):
        fit(replace(OPTIONS, epochs=0.2, learning_rate=0.01), tmp_path, resume=True)


def test_diverging_training_stops() -> None:
    """If this fails, hours go into a network of NaNs."""
    with pytest.raises(Error, match="lower the learning rate"):
        fit(replace(OPTIONS, learning_rate=1e9, epochs=20.0))


@pytest.mark.parametrize("gradient_only", [False, True])
def test_a_loss_that_is_no_number_leaves_no_trace(tmp_path: Path, gradient_only: bool) -> None:
    """If this fails, the model or the newest checkpoint of a failed training is full of NaN."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 10))
    first = model[0].weight

    def penalty() -> torch.Tensor:
        if trainer.step < trainer.epoch_steps + 2:
            return first.sum() * 0
        if gradient_only:  # the root of 0 is 0, its slope is not finite, and 0 * inf is NaN
            return (first.sum() * 0).sqrt()
        return first.sum() * float("nan")

    options = replace(OPTIONS, epochs=2.0, checkpoint_steps=1)
    trainer = Trainer(model, load("digits"), options, folder=tmp_path, penalty=penalty)
    with pytest.raises(Error, match=r"lower the learning rate .* the weights of step \d+ again"):
        trainer.run()
    saved = load_checkpoint(tmp_path)
    assert saved.step == trainer.epoch_steps + 2
    for name, tensor in model.state_dict().items():
        assert torch.isfinite(tensor).all() and torch.equal(tensor, saved.model[name])


def test_weight_decay_spares_bn_biases_and_strengths() -> None:
    """If this fails, decay pulls on parameters that have no business being small."""
    spared = nn.Parameter(torch.ones(3, 3))
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 10))
    model.register_parameter("strength", spared)
    trainer = Trainer(model, load("digits"), OPTIONS, no_decay=[spared])
    decayed, free = trainer.optimizer.param_groups
    assert [p.shape for p in decayed["params"]] == [model[0].weight.shape, model[3].weight.shape]
    assert decayed["weight_decay"] == OPTIONS.weight_decay and free["weight_decay"] == 0
    assert any(p is spared for p in free["params"]) and len(free["params"]) == 5


def test_penalty_is_part_of_the_loss() -> None:
    """If this fails, sparsifying is plain training."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    calls = []

    def penalty() -> torch.Tensor:
        calls.append(1)
        return 10.0 * model[1].weight.abs().sum()

    options = replace(OPTIONS, epochs=1.0, learning_rate=0.001, schedule="constant")
    before = float(model[1].weight.detach().abs().sum())
    Trainer(model, load("digits"), options, penalty=penalty).run()
    assert len(calls) == 19
    assert float(model[1].weight.detach().abs().sum()) < 0.5 * before


def test_teacher_is_part_of_the_loss() -> None:
    """If this fails, distillation has no effect."""
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)
    results = []
    for share in (0.0, 1.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        options = replace(OPTIONS, epochs=6.0, learning_rate=0.1, augment=False)
        Trainer(model, load("digits"), options, teacher=teacher, distill=share).run()
        images = load("digits").images
        agreed = model(images).argmax(1) == teacher(images).argmax(1)
        results.append(float(agreed.float().mean()))
    assert results[1] > 0.8 > results[0] + 0.3


def test_only_classifiers_are_trained(tmp_path: Path) -> None:
    """If this fails, a model whose output is no class ends in a traceback after the data is read,
    or trains to nothing."""
    for name, kind in [("unet", "segmentation"), ("yolov8n", "detection")]:
        options = replace(OPTIONS, model=name, model_options={})
        with pytest.raises(Error, match=f"'{name}' is for {kind}, and training takes classifiers"):
            fit(options, tmp_path / "out")
        with pytest.raises(Error, match=f"'{name}' is for {kind}"):
            make_model(options, 10, (1, 8, 8))
    assert not (tmp_path / "out").exists()


def test_limit_takes_fewer_images() -> None:
    """If this fails, a trial run takes as long as the real one."""
    trainer = Trainer(nn.Linear(8, 2), load("digits"), replace(OPTIONS, limit=130))
    assert trainer.epoch_steps == 2 and trainer.total_steps == 4
