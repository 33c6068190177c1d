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
from kernelprune.train.recipe import Recipe, load_recipe, recipe_run

__all__ = [
    "Checkpoint",
    "ExportOptions",
    "PruneOptions",
    "PruneResult",
    "Recipe",
    "TrainOptions",
    "TrainResult",
    "Trainer",
    "accuracy",
    "export_run",
    "fit",
    "latest_checkpoint",
    "load_checkpoint",
    "load_model",
    "load_recipe",
    "predict",
    "prune_run",
    "recipe_run",
    "save_checkpoint",
]
