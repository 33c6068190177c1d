"""Recipes: the options of a training and of a pruning in one YAML file.

Sections ``train`` (optional) and ``prune``, whose keys are the fields of ``TrainOptions`` and
``PruneOptions``, and ``then`` for a second pruning of the result, such as of connections after
channels; what is not said has its default. Unknown keys are refused.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from kernelprune import models
from kernelprune.errors import Error
from kernelprune.prune.layers import find_layers
from kernelprune.train.loop import fit
from kernelprune.train.options import PruneOptions, TrainOptions
from kernelprune.train.pruning import PruneResult, prune_run

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
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Error(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise Error(f"{path}: must have sections such as train and prune with keys and values")
    for name in content:
        if name not in _SECTIONS:
            nearest = difflib.get_close_matches(str(name), _SECTIONS, 1, 0.0)[0]
            raise Error(f"{path}: no section {name!r}; did you mean {nearest!r}?")
    try:
        for name, values in content.items():
            _check_types(_SECTIONS[name], values)
        train = TrainOptions.from_dict(content["train"]) if "train" in content else None
        then = PruneOptions.from_dict(content["then"]) if "then" in content else None
        return Recipe(train, PruneOptions.from_dict(content.get("prune", {})), then)
    except Error as error:
        raise Error(f"{path}: {error}") from error


def _check_types(cls: type, values: dict[str, Any]) -> None:
    """YAML has numbers, words and lists; ``density: a tenth`` must not end in a traceback."""
    wanted = {entry.name: str(entry.type) for entry in dataclasses.fields(cls)}
    kinds = {"float": (int, float), "int": int, "str": str, "bool": bool, "list": list}
    kinds["dict"] = dict
    for name, value in values.items():
        if name not in wanted:
            continue  # from_dict says so
        main, _, rest = wanted[name].partition(" | ")
        kind: Any = kinds[main.partition("[")[0]]
        is_none = value is None and rest == "None"
        swapped = isinstance(value, bool) and kind is not bool  # True is an int in Python
        if swapped or not (is_none or isinstance(value, kind)):
            raise Error(f"{name}: {value!r} is not of the kind {wanted[name]}")


def _check_ignored(train: TrainOptions, prune: PruneOptions) -> None:
    """Names a pattern that matches nothing before the training, not after it."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        find_layers(models.create(train.model, **train.model_options), ignore=prune.ignore)


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
