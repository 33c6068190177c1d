"""Prunes a trained checkpoint: sparsify, prune, fine-tune; then writes the model file."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from kernelprune.data import Dataset, load
from kernelprune.errors import Error
from kernelprune.files import check_writable, is_unused, name_of
from kernelprune.format import Graph
from kernelprune.frontends.torch.export import export
from kernelprune.prune.batches import Loss, recalibrate
from kernelprune.prune.counts import count
from kernelprune.prune.distributed import is_first, join_processes, same_on_all, wait_for_all
from kernelprune.prune.group_options import GroupOptions
from kernelprune.prune.plan import Plan
from kernelprune.prune.schedule import cubic_densities, round_steps
from kernelprune.prune.synaptic_options import PenaltyOptions
from kernelprune.train.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from kernelprune.train.device import pick_device
from kernelprune.train.evaluate import accuracy
from kernelprune.train.loop import Trainer, channels_last, load_model, torch_threads
from kernelprune.train.methods import Samples, make_method
from kernelprune.train.options import (
    ExportOptions,
    PruneOptions,
    SparsifyOptions,
    TrainOptions,
)

# What the sparsifying depends on: runs that differ in the rest, such as in density, may share it.
_SPARSIFY_OPTIONS = (
    "method", "ignore", "scale", "distill", "seed", *PenaltyOptions.names(),
    *SparsifyOptions.names(), *GroupOptions.names(),
)  # fmt: skip


@dataclass
class PruneResult:
    """What pruning did.

    Attributes:
        model: A plain module whose dropped kernels are zero, in eval mode.
        folder: Its checkpoint, for :func:`export_run`.
        validation: Accuracy on the validation split before and after.
        connections: Kept and all connections of the whole network.
        macs: Kept and all multiply-adds per image of the whole network.
        plan: What the pruning step kept, layer by layer.
    """

    model: nn.Module
    folder: Path | None
    validation: tuple[float, float]
    connections: tuple[int, int]
    macs: tuple[int, int]
    plan: Plan


def prune_model(
    model: nn.Module,
    options: PruneOptions,
    train: TrainOptions,
    dataset: Dataset,
    *,
    validation: Dataset | None = None,
    folder: Path | None = None,
    resume: bool = False,
    console: Console | None = None,
    loss: Loss | None = None,
) -> tuple[nn.Module, Plan]:
    """Sparsifies (synaptic only), prunes and fine-tunes ``model``, which is changed.

    Checkpoints of the two trainings go to ``folder/sparsify`` and ``folder/finetune``. The pruning
    is a function of the weights, so a resumed run does it again; what was chosen greedily is taken
    from the checkpoint.

    Args:
        model: Trained.
        options: How to prune.
        train: How it was trained; what ``options`` does not say is as there.
        dataset: The training images.
        validation: Images to check on after each epoch.
        folder: For checkpoints; None writes none.
        resume: Goes on from the checkpoints in ``folder``.
        console: Where to show progress.
        loss: ``loss(outputs, targets)``, one number, for a task of one's own; the targets are the
            data set's labels. None is the cross entropy of classes.

    Returns:
        The plain pruned module in eval mode, and what the pruning step kept.

    Raises:
        Error: ``folder`` holds the checkpoints of other options; density and macs contradict each
            other.
    """
    train = replace(train, device=options.device)
    model.to(pick_device(train.device))
    teacher = None
    if options.distill > 0:
        teacher = channels_last(copy.deepcopy(model).eval().requires_grad_(False))
    method = make_method(model, options, train, dataset, console, loss)

    def checkpoint_of(phase: str) -> Checkpoint | None:
        found = latest_checkpoint(folder / phase) if resume and folder is not None else None
        if found is None:
            return None
        checkpoint = load_checkpoint(found)
        before = PruneOptions.from_dict(checkpoint.state.get("prune", {}))
        names = _SPARSIFY_OPTIONS if phase == "sparsify" else set(options.to_dict()) - {"device"}
        if any(getattr(before, name) != getattr(options, name) for name in names):
            raise Error(f"{found.parent} was made with other pruning options; use a new folder")
        return checkpoint

    def train_on(phase: str, epochs: float, rate: float, **more: Any) -> Trainer | None:
        if epochs == 0:
            return None
        trainer = Trainer(
            model,
            dataset,
            replace(train, epochs=epochs, learning_rate=rate, seed=options.seed),
            validation=validation,
            folder=None if folder is None else folder / phase,
            loss=loss,
            title=phase,
            console=console,
            teacher=teacher,
            distill=options.distill,
            extra_state={"prune": options.to_dict()},
            no_decay=method.no_decay,
            **more,
        )
        checkpoint = checkpoint_of(phase)
        if checkpoint is not None:
            trainer.restore(checkpoint)
        return trainer

    if method.sparsifies:
        sparsify = train_on(
            "sparsify",
            options.sparsify_epochs,
            options.sparsify_learning_rate,
            penalty=method.penalty,
        )
        if sparsify is not None:
            sparsify.run()
    method.hold(checkpoint_of("finetune"))
    plan = None
    if options.rounds == 1:
        plan = method.prune(options.density, options.macs)
    due: dict[int, float] = {}

    def prune_on(step: int) -> None:
        if step in due:
            last = step == max(due)
            method.prune(due[step], options.macs if last else None)

    finetune = train_on(
        "finetune", options.finetune_epochs, options.finetune_learning_rate, before_step=prune_on
    )
    if options.rounds > 1:
        if finetune is None:
            raise Error(f"rounds={options.rounds}: they take place while fine-tuning, for 0 epochs")
        steps = round_steps(options.rounds, finetune.total_steps)
        due.update(zip(steps, cubic_densities(options.density, options.rounds), strict=True))
    if finetune is not None:
        finetune.run()
    if plan is None:  # a round more drops nothing: what is kept is as large as it may be
        plan = method.prune(options.density, options.macs)
    pruned = method.finalize().eval()
    if options.recalibrate:
        # Training divides by the variances of its batch. Channels that pruning left constant have
        # none, so running means that lag only a little are off by hundreds of deviations.
        recalibrate(pruned, Samples(dataset, train, options.seed), options.recalibrate)
        same_on_all(pruned)
    return pruned, plan


def prune_run(
    source: str | os.PathLike[str],
    options: PruneOptions,
    folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    console: Console | None = None,
) -> PruneResult:
    """Prunes the model of a training's checkpoint and writes the result as a checkpoint.

    Args:
        source: A checkpoint, or the folder of a training.
        options: How to prune.
        folder: Where the pruned checkpoint goes, and those of the phases on the way.
        resume: Goes on with a run of the same options that was interrupted.
        console: Where to show progress.

    Raises:
        Error: No or a damaged checkpoint, unknown method, or ``folder`` is in use.
    """
    join_processes()
    target = Path(name_of(folder))
    if not resume and not is_unused(target):
        raise Error(f"{target} is not empty; go on with --resume or use a new folder")
    checkpoint = load_checkpoint(source)
    model, train = load_model(checkpoint)
    dataset = load(train.dataset, "train", path=train.data_path)
    validation = load(train.dataset, "validation", path=train.data_path)
    wait_for_all()  # nobody makes the folder while another still looks whether it is empty
    if is_first():
        check_writable(target)
    with torch_threads(train.threads):
        before = accuracy(model, validation)
        model, plan = prune_model(
            model,
            options,
            train,
            dataset if train.limit is None else dataset.first(train.limit),
            validation=validation,
            folder=target,
            resume=resume,
            console=console,
        )
        after = accuracy(model, validation)
    state = {
        **{key: checkpoint.state[key] for key in ("options", "num_classes", "shape")},
        "kind": "pruned",
        "step": checkpoint.step,
        "prune": options.to_dict(),
        "validation": after,
    }
    wait_for_all()  # nobody writes while another still looks at the folder
    if is_first():
        save_checkpoint(target, Checkpoint(model.state_dict(), {}, state))
    wait_for_all()
    counts = count(model, validation.images[:1])
    return PruneResult(
        model,
        target,
        (before, after),
        (counts.connections_kept, counts.connections),
        (counts.macs_kept, counts.macs),
        plan,
    )


def export_run(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    options: ExportOptions | None = None,
    *,
    preprocessing: Any = None,
    labels: Sequence[str] | None = None,
) -> Graph:
    """Writes the model of a checkpoint, trained or pruned, as a model file.

    Args:
        source: A checkpoint, or the folder that holds one.
        path: The ``.safetensors`` file.
        options: See :class:`ExportOptions`.
        preprocessing, labels: As of :func:`kernelprune.export`.

    Returns:
        The graph that was written.

    Raises:
        Error: No or a damaged checkpoint; the file cannot be written; preprocessing or labels do
            not suit the model.
        UnsupportedOperator: The model has an op that a file cannot hold.
    """
    options = options or ExportOptions()
    checkpoint = load_checkpoint(source)
    model, train = load_model(checkpoint)
    test = load(train.dataset, "test", path=train.data_path)
    provenance = {"architecture": train.model, "dataset": train.dataset}
    pruned = checkpoint.state.get("prune")
    provenance["method"] = PruneOptions.from_dict(pruned).method if pruned else "dense"
    if options.evaluate:
        provenance["accuracy"] = f"{accuracy(model, test):.4f}"
    return export(
        model, test.images[:1], path, preprocessing=preprocessing, labels=labels, **provenance
    )
