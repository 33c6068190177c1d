"""The options of ``kernelprune prune``: of the command line, of a recipe, or of both.

What there is to say, with its help and default, comes from ``PruneOptions``. No torch before a
command runs.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kernelprune.cli.choices import choice
from kernelprune.errors import Error
from kernelprune.prune.options import Options, parameters
from kernelprune.train.options import PruneOptions, check_looked_at

if TYPE_CHECKING:
    from kernelprune.train.recipe import Recipe


def command_line_of(options: type[Options]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator of a command: it also takes, beside its own parameters, those fields of ``options``
    that are for the command line. Their values are in ``context.params``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = {entry.name for entry in dataclasses.fields(options)}

        @functools.wraps(command)
        def without(**values: Any) -> None:
            command(**{name: value for name, value in values.items() if name not in own})

        hints = typing.get_type_hints(command, include_extras=True)
        shown = [
            parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
            for parameter in inspect.signature(command).parameters.values()
        ]
        shown += _typer_parameters(options)
        without.__annotations__ = {p.name: p.annotation for p in shown} | {"return": None}
        without.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        return without

    return decorate


def _typer_parameters(options: type[Options]) -> list[inspect.Parameter]:
    described = {entry.name: entry.metadata for entry in dataclasses.fields(options)}
    found = []
    for parameter in parameters(options):
        if described[parameter.name]["command_line"]:
            text = described[parameter.name]["text"]
            help_text = f"{text[0].upper()}{text[1:]}."
            kind = parameter.annotation if described[parameter.name]["reads"] is None else str
            words = described[parameter.name]["choices"]
            # A flag alone: a column for --no-NAME would leave the help none to explain in.
            names = [f"--{parameter.name.replace('_', '-')}"] if kind is bool else []
            shown = choice(help_text, words) if words else typer.Option(*names, help=help_text)
            found.append(parameter.replace(annotation=Annotated[kind, shown]))
    return found


def chosen_recipe(context: typer.Context, recipe: Path | None, source: Path | None) -> Recipe:
    """The recipe, with what was typed on the command line in its place; without a file the options
    alone. Raises Error when there is nothing to prune, or an option was typed that does nothing."""
    from kernelprune.train.recipe import Recipe, load_recipe

    known = PruneOptions.names()
    values = {name: value for name, value in context.params.items() if name in known}
    values["ignore"] = list(values["ignore"])
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
