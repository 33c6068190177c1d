"""The command line, ``kernelprune``: each command calls one function of the library."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits; see :func:`kernelprune.cli.app.main`.

    The engine alone needs numpy only, so the packages of the command line may be missing.
    """
    try:
        from kernelprune.cli import app
    except ModuleNotFoundError as error:
        print(
            f"error: the command line needs {error.name!r}: pip install 'kernelprune[all]'",
            file=sys.stderr,
        )
        sys.exit(2)
    app.main(arguments)
