"""The console of the command line."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console
from rich.text import Text

from kernelprune.columns import WIDE
from kernelprune.text import plain


class PlainConsole(Console):
    """Prints words as they are: paths and names of files and models are no markup, have no control
    characters and are not coloured for what they look like."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        shown = [
            Text(plain(each, keep="\n")) if isinstance(each, str) else each for each in objects
        ]
        super().print(*shown, **options)


def make_console() -> PlainConsole:
    """For standard output. Rows of a table stay whole in a file or a pipe, which have no width of
    their own."""
    found = PlainConsole()
    if found.is_terminal or "COLUMNS" in os.environ:
        return found
    return PlainConsole(width=WIDE)
