"""The options of ``kernelprune prune``: of the command line, of a recipe, or of both."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import typer

from kernelprune.errors import Error
from kernelprune.train import PruneOptions, Recipe, load_recipe
from kernelprune.train.options import check_looked_at


def chosen_recipe(context: typer.Context, recipe: Path | None, source: Path | None) -> Recipe:
    """The recipe, with what was typed on the command line in its place; without a file the options
    alone. Raises Error when there is nothing to prune, or an option was typed that does nothing."""
    known = {entry.name for entry in dataclasses.fields(PruneOptions)}
    values = {name: value for name, value in context.params.items() if name in known}
    values["ignore"] = list(values["ignore"] or [])
    typed = {name: value for name, value in values.items() if _was_typed(context, name)}
    if recipe is None:
        if "macs" in typed and "density" not in typed:
            values["density"] = 1.0  # the budget alone
        chosen = Recipe(None, PruneOptions(**values))
    else:
        chosen = load_recipe(recipe)
        chosen = dataclasses.replace(chosen, prune=dataclasses.replace(chosen.prune, **typed))
    check_looked_at(chosen.prune.method, typed)
    if source is None and chosen.train is None:
        raise Error("say which checkpoint to prune: --from, or a --recipe that also trains")
    return chosen


def _was_typed(context: typer.Context, name: str) -> bool:
    found = context.get_parameter_source(name)
    return found is not None and found.name == "COMMANDLINE"
