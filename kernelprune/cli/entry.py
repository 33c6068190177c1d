"""Runs the command line, and says how errors reach the user."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import typer

from kernelprune.cli import (  # noqa: F401 (register their commands)
    compressing,
    quantizing,
    racing,
    reporting,
)
from kernelprune.cli.commands import app
from kernelprune.cli.missing import missing_package
from kernelprune.errors import Error
from kernelprune.text import plain


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 2 wrong usage or an error, 130 interrupted.

    An error is one line on standard error; with ``--debug`` its traceback comes first. A warning
    is one line too.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may not know all letters of a name
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Taken out before parsing: it may stand anywhere, and parsing itself may be what fails.
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            code = app(arguments, prog_name="kernelprune", standalone_mode=False)
        except Exception as error:
            if debug and not isinstance(error, typer.Abort):
                raise
            code = _report(error)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = 130
    sys.exit(code if isinstance(code, int) else 0)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Without the file and line of ours that warnings come with."""
    print(f"warning: {_one_line(str(message))}", file=sys.stderr)


def _report(error: Exception) -> int:
    """One line for an error that has a meaning to the user; anything else is a bug and is raised.

    typer brings its own parser's exceptions or uses those of click, by version; both have
    ``format_message``.
    """
    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if isinstance(error, typer.Abort):
        print("interrupted", file=sys.stderr)
        return 130
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error, file=sys.stderr)
        return 2
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "kernelprune"
        print(f"error: {_one_line(error.format_message())} (see {command} --help)", file=sys.stderr)
        return 2
    if isinstance(error, Error):
        print(f"error: {_one_line(str(error))}", file=sys.stderr)
        return 2
    if isinstance(error, ModuleNotFoundError):
        print(missing_package(error), file=sys.stderr)
        return 2
    raise error


def _one_line(text: str) -> str:
    return plain(" ".join(text.split()))
