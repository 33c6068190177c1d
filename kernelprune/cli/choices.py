"""Options that take one of a few words: ``--help`` shows them, and the shell completes them. And
the arguments and options of several commands.

What is wrong is said by the function that a command calls, the same to all who call it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

# Longer lists stand in the line that says what an option is for.
_WIDEST = 18

DATA_SETS = ("fashion-mnist", "digits", "cifar10", "cifar100", "imagenet")
ISAS = ("portable", "avx2", "avx512")
ENGINE_PRECISIONS = ("fast", "strict")


def choice(help: str, words: Sequence[str], *names: str, **more: Any) -> Any:
    """An option that takes one of ``words``."""
    listed = "|".join(words)
    if len(listed) <= _WIDEST:
        more["metavar"] = listed
    elif not all(word in help for word in words):
        help = f"{help} One of: {', '.join(words)}."
    return typer.Option(*names, help=help, autocompletion=among(words), **more)


def among(words: Sequence[str]) -> Callable[[str], list[str]]:
    """Completes one word."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def several(words: Sequence[str]) -> Callable[[str], list[str]]:
    """Completes the last of words with commas between them."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        typed = before.split(",")
        left = [word for word in words if word not in typed]
        return [f"{before}{comma}{word}" for word in left if word.startswith(last)]

    return complete


def models(incomplete: str) -> list[str]:
    """Completes the name of a model of the zoo."""
    from kernelprune.models import names

    return among(names("classifier"))(incomplete)


# What several commands take.
File = Annotated[Path, typer.Argument(help="A model file (.safetensors).", metavar="FILE")]
Threads = Annotated[int, typer.Option(help="Threads.")]
Isa = Annotated[str | None, choice("Instruction set; default: the best there is.", ISAS)]
Precision = Annotated[str, choice("strict: without Winograd, rounds less.", ENGINE_PRECISIONS)]
DevicePrecision = Annotated[
    str,
    choice(
        "strict: without Winograd, rounds less; tf32, half: on a GPU.",
        (*ENGINE_PRECISIONS, "tf32", "half"),
    ),
]
EngineDevice = Annotated[str, choice("Where it runs; a second GPU is cuda:1.", ("cpu", "cuda"))]
PlanFile = Annotated[Path | None, typer.Option(help="Plan that kernelprune tune wrote.")]
DataPath = Annotated[str | None, typer.Option(help="Folder with the data set's files.")]
Device = Annotated[
    str, choice("auto: a GPU if torch has one; a second GPU is cuda:1.", ("auto", "cpu", "cuda"))
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")]
