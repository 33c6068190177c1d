"""Sparsify, prune, fine-tune, export: from one checkpoint to the next."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kernelprune.errors import Error
from kernelprune.format import read
from kernelprune.train import (
    PruneOptions,
    TrainOptions,
    export_run,
    fit,
    latest_checkpoint,
    load_checkpoint,
    load_model,
    prune_run,
)

OPTIONS = PruneOptions(
    density=0.2, macs=0.3, sparsify_epochs=0.5, finetune_epochs=1.0, finetune_learning_rate=0.02
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    options = TrainOptions(
        dataset="digits",
        model_options={"width": 0.25},
        epochs=3.0,
        batch_size=64,
        learning_rate=0.05,
        threads=1,
        precision="float32",
    )
    fit(options, folder)
    return folder


@pytest.mark.parametrize("method", ["synaptic", "l1", "l2", "random"])
def test_prunes_and_fine_tunes(trained: Path, tmp_path: Path, method: str) -> None:
    """If this fails, a method drops too few connections, or fine-tuning revives them."""
    result = prune_run(trained, replace(OPTIONS, method=method), tmp_path / "out")
    assert result.plan.prunable_density == pytest.approx(0.2, abs=0.02)
    # Fine-tuning may make a constant of 0 another one, which has to stay.
    assert result.plan.macs_density <= 0.3 and result.macs[0] <= 1.02 * 0.3 * result.macs[1]
    kept = sum(
        int((weight.abs().sum((2, 3)) != 0).sum())
        for weight in result.model.state_dict().values()
        if weight.ndim == 4
    )
    assert kept == sum(row.kept for row in result.plan.rows if row.name != "classifier")
    model, _ = load_model(load_checkpoint(tmp_path / "out"))
    for name, value in result.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_interrupted_pruning_resumes_to_the_same_weights(trained: Path, tmp_path: Path) -> None:
    """If this fails, a pruning that was killed ends somewhere else."""
    prune_run(trained, OPTIONS, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "finetune")
    for path in (tmp_path / "parts").glob("checkpoint-*"):
        shutil.rmtree(path)
    with pytest.raises(Error, match="--resume"):
        prune_run(trained, OPTIONS, tmp_path / "parts")
    with pytest.raises(Error, match="other pruning options"):
        prune_run(trained, replace(OPTIONS, penalty=0.5), tmp_path / "parts", resume=True)
    prune_run(trained, OPTIONS, tmp_path / "parts", resume=True)
    with pytest.raises(Error, match="other pruning options"):
        prune_run(trained, replace(OPTIONS, density=0.3), tmp_path / "parts", resume=True)
    files = [latest_checkpoint(tmp_path / name) for name in ("whole", "parts")]
    assert files[0] is not None and files[1] is not None
    first, second = ((path / "model.safetensors").read_bytes() for path in files if path)
    assert first == second


SCRIPT = """
    import sys
    from kernelprune.train import PruneOptions, prune_run
    prune_run(sys.argv[1], PruneOptions.from_dict({options}), sys.argv[2], resume=True)
"""


def test_killed_pruning_resumes_to_the_same_weights(trained: Path, tmp_path: Path) -> None:
    """If this fails, a pruning that the system killed in either of its trainings ends elsewhere."""
    source = tmp_path / "source"
    shutil.copytree(trained, source)
    state = latest_checkpoint(source) / "state.json"
    content = json.loads(state.read_text())
    content["options"]["checkpoint_steps"] = 1  # so that writing is hit too
    state.write_text(json.dumps(content))
    options = replace(OPTIONS, sparsify_epochs=2.0, finetune_epochs=3.0)
    prune_run(trained, options, tmp_path / "whole")
    script = textwrap.dedent(SCRIPT).format(options=options.to_dict())
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for phase, step, delay in (("sparsify", 9, 0.0), ("finetune", 14, 0.011)):
        process = subprocess.Popen(command, env=environment)
        folder, ends = tmp_path / "killed" / phase, time.monotonic() + 120
        while process.poll() is None and time.monotonic() < ends:
            path = latest_checkpoint(folder)
            if path is not None and int(path.name.split("-")[1]) >= step:
                break
            time.sleep(0.003)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the pruning ended before it was killed"
    assert subprocess.run(command, env=environment).returncode == 0
    files = [latest_checkpoint(tmp_path / name) for name in ("whole", "killed")]
    first, second = ((path / "model.safetensors").read_bytes() for path in files if path)
    assert first == second


def test_densities_share_the_sparsifying(trained: Path, tmp_path: Path) -> None:
    """If this fails, a sparsified network that another density is pruned from ends elsewhere."""
    options = replace(OPTIONS, density=0.4)
    whole = prune_run(trained, options, tmp_path / "whole").model.state_dict()
    prune_run(trained, OPTIONS, tmp_path / "other")
    shutil.copytree(tmp_path / "other" / "sparsify", tmp_path / "shared" / "sparsify")
    shared = prune_run(trained, options, tmp_path / "shared", resume=True).model.state_dict()
    for name, value in whole.items():
        assert torch.equal(shared[name], value), name


def test_export(trained: Path, tmp_path: Path) -> None:
    """If this fails, a checkpoint does not become a model file, or the file hides its origin."""
    prune_run(trained, OPTIONS, tmp_path / "out")
    graph = export_run(tmp_path / "out", tmp_path / "model.safetensors")
    found, metadata = read(tmp_path / "model.safetensors")
    assert found.kept_connections() == graph.kept_connections()
    assert metadata["method"] == "synaptic" and metadata["dataset"] == "digits"
    assert 0.0 <= float(metadata["accuracy"]) <= 1.0
    export_run(trained, tmp_path / "dense.safetensors")
    assert read(tmp_path / "dense.safetensors")[1]["method"] == "dense"
    assert read(tmp_path / "dense.safetensors")[0].density() == 1.0


def test_distillation_runs(trained: Path, tmp_path: Path) -> None:
    """If this fails, the teacher is pruned along with the student."""
    result = prune_run(trained, replace(OPTIONS, distill=0.5), tmp_path / "out")
    assert result.plan.prunable_density == pytest.approx(0.2, abs=0.02)


def test_missing_source(tmp_path: Path) -> None:
    """If this fails, a wrong path ends in a traceback."""
    with pytest.raises(Error, match="no checkpoint"):
        prune_run(tmp_path / "nothing", OPTIONS, tmp_path / "out")
    with pytest.raises(Error, match="no checkpoint"):
        export_run(tmp_path / "nothing", tmp_path / "model.safetensors")
