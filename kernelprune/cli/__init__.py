"""The command line, ``kernelprune``: each command calls one function of the library."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kernelprune.cli.missing import missing_package

__all__ = ["main", "missing_package"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits; see :func:`kernelprune.cli.entry.main`.

    The engine alone needs numpy only, so the packages of the command line may be missing.
    """
    try:
        from kernelprune.cli import entry
    except ModuleNotFoundError as error:
        print(missing_package(error), file=sys.stderr)
        sys.exit(2)
    entry.main(arguments)
