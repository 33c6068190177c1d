"""The command line, ``kernelprune``: each command calls one function of the library."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kernelprune.errors import EXTRAS

__all__ = ["main", "missing_package"]


def missing_package(error: ModuleNotFoundError) -> str:
    """One line for a package that is not installed: what to type."""
    name = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(name)
    wanted = f"'kernelprune[{extra}]'" if extra else name
    return f"error: the package {name!r} is not installed: pip install {wanted}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits; see :func:`kernelprune.cli.app.main`.

    The engine alone needs numpy only, so the packages of the command line may be missing.
    """
    try:
        from kernelprune.cli import app
    except ModuleNotFoundError as error:
        print(missing_package(error), file=sys.stderr)
        sys.exit(2)
    app.main(arguments)
