"""Recipes: the options of a training and of a pruning in one YAML file.

Two sections, ``train`` (optional) and ``prune``, whose keys are the fields of ``TrainOptions`` and
``PruneOptions``; what is not said has its default. Unknown keys are refused.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from kernelprune.errors import Error
from kernelprune.train.loop import fit
from kernelprune.train.options import PruneOptions, TrainOptions
from kernelprune.train.pruning import PruneResult, prune_run

_SECTIONS: dict[str, type] = {"train": TrainOptions, "prune": PruneOptions}


@dataclass(frozen=True)
class Recipe:
    """``train`` is None for a recipe that prunes whatever it is given."""

    train: TrainOptions | None
    prune: PruneOptions


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
        raise Error(f"{path}: must have sections {' and '.join(_SECTIONS)} with keys and values")
    for name in content:
        if name not in _SECTIONS:
            nearest = difflib.get_close_matches(str(name), _SECTIONS, 1, 0.0)[0]
            raise Error(f"{path}: no section {name!r}; did you mean {nearest!r}?")
    try:
        for name, values in content.items():
            _check_types(_SECTIONS[name], values)
        train = TrainOptions.from_dict(content["train"]) if "train" in content else None
        return Recipe(train, PruneOptions.from_dict(content.get("prune", {})))
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


def recipe_run(
    recipe: Recipe,
    folder: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> PruneResult:
    """Trains (into ``folder/dense``) and prunes (into ``folder/pruned``).

    Args:
        recipe: What to do.
        folder: Where everything goes.
        source: A checkpoint to prune instead of training; the pruned one goes to ``folder`` then.
        resume: Goes on with an interrupted run of the same recipe.
        console: Where to show progress.

    Raises:
        Error: The recipe does not say how to train and there is no ``source``; what ``fit`` and
            ``prune_run`` raise.
    """
    if source is not None:
        return prune_run(source, recipe.prune, folder, resume=resume, console=console)
    if recipe.train is None:
        raise Error("the recipe has no section 'train': say which checkpoint to prune")
    target = Path(folder)
    fit(recipe.train, target / "dense", resume=resume, console=console)
    return prune_run(
        target / "dense", recipe.prune, target / "pruned", resume=resume, console=console
    )
