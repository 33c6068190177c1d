"""Recipes: the options of a training and of a pruning in one YAML file.

Sections ``train`` (optional) and ``prune``, whose keys are the fields of ``TrainOptions`` and
``PruneOptions``, and ``then`` for a second pruning of the result, such as of connections after
channels; what is not said has its default. Unknown keys are refused.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from kernelprune import models
from kernelprune.errors import Error
from kernelprune.files import read_bytes
from kernelprune.prune.checks import short
from kernelprune.prune.layers import find_layers
from kernelprune.train.loop import fit
from kernelprune.train.options import PruneOptions, TrainOptions
from kernelprune.train.pruning import PruneResult, prune_run

_MOST_BYTES = 1 << 20
_SECTIONS: dict[str, type] = {"train": TrainOptions, "prune": PruneOptions, "then": PruneOptions}


@dataclass(frozen=True)
class Recipe:
    """``train`` is None for a recipe that prunes whatever it is given. ``then``: the options of a
    second pruning of the result; its density counts what the first dropped too."""

    train: TrainOptions | None
    prune: PruneOptions
    then: PruneOptions | None = None


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Reads a recipe.

    Raises:
        Error: No such file, not YAML, an unknown section or key (the nearest known one is named),
            or a value of the wrong type or out of range.
    """
    content = _read_yaml(path)
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise Error(f"{path}: must have sections such as train and prune with keys and values")
    for name in content:
        if name not in _SECTIONS:
            nearest = difflib.get_close_matches(short(name), _SECTIONS, 1, 0.0)[0]
            raise Error(f"{path}: no section {short(name)}; did you mean {nearest!r}?")
    try:
        train = TrainOptions.from_dict(content["train"]) if "train" in content else None
        then = PruneOptions.from_dict(content["then"]) if "then" in content else None
        return Recipe(train, PruneOptions.from_dict(content.get("prune", {})), then)
    except Error as error:
        raise Error(f"{path}: {error}") from error


def _read_yaml(path: str | os.PathLike[str]) -> Any:
    """The value of a YAML file, read strictly: no key twice, and no aliases, by which a short file
    can stand for a huge value. Raises Error."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark
                raise yaml.constructor.ConstructorError(
                    None, None, "aliases (*name) are not for recipes: write it out", mark
                )
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(keys)) != len(node.value):
                problem = "a key stands here twice, or is no word"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(read_bytes(path, _MOST_BYTES), Loader)
    except RecursionError:
        raise Error(f"{path}: nested too deep for a recipe") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise Error(f"{path}: {' '.join(str(error).split())[:300]}") from error


def _check_ignored(train: TrainOptions, prune: PruneOptions) -> None:
    """Names a pattern that matches nothing before the training, not after it."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = models.create(train.model, **train.model_options)
    find_layers(model.to_empty(device="cpu"), ignore=prune.ignore)


def recipe_run(
    recipe: Recipe,
    folder: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> PruneResult:
    """Trains (into ``folder/dense``) and prunes (into ``folder/pruned``; with a second pruning the
    first goes to ``folder/first``).

    Args:
        recipe: What to do.
        folder: Where everything goes.
        source: A checkpoint to prune instead of training; without a second pruning the pruned one
            goes to ``folder`` itself then.
        resume: Goes on with an interrupted run of the same recipe.
        console: Where to show progress.

    Raises:
        Error: The recipe does not say how to train and there is no ``source``; what ``fit`` and
            ``prune_run`` raise.
    """
    target = Path(folder)
    steps = [recipe.prune] if recipe.then is None else [recipe.prune, recipe.then]
    if source is None:
        if recipe.train is None:
            raise Error("the recipe has no section 'train': say which checkpoint to prune")
        for step in steps:
            _check_ignored(recipe.train, step)
        fit(recipe.train, target / "dense", resume=resume, console=console)
    elif recipe.then is None:
        return prune_run(source, recipe.prune, target, resume=resume, console=console)
    places = [target / "pruned"] if recipe.then is None else [target / "first", target / "pruned"]
    latest = target / "dense" if source is None else Path(source)
    for step, place in zip(steps, places, strict=True):
        result = prune_run(latest, step, place, resume=resume, console=console)
        latest = place
    return result
