"""Training: a loop whose result depends on its options alone, and checkpoints without pickle."""

from __future__ import annotations

from kernelprune.train.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from kernelprune.train.evaluate import accuracy, predict
from kernelprune.train.loop import Trainer, TrainResult, fit, load_model
from kernelprune.train.options import ExportOptions, PruneOptions, TrainOptions
from kernelprune.train.pruning import PruneResult, export_run, prune_run

__all__ = [
    "Checkpoint",
    "ExportOptions",
    "PruneOptions",
    "PruneResult",
    "TrainOptions",
    "TrainResult",
    "Trainer",
    "accuracy",
    "export_run",
    "fit",
    "latest_checkpoint",
    "load_checkpoint",
    "load_model",
    "predict",
    "prune_run",
    "save_checkpoint",
]
