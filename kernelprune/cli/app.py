"""The application, on which the commands register, and the options of all of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import kernelprune

# As they follow each other in use.
_ORDER = (
    "demo",
    "train",
    "prune",
    "export",
    "quantize",
    "compress",
    "run",
    "inspect",
    "report",
    "bench",
    "tune",
)


class _Commands(TyperGroup):
    def list_commands(self, context: Any) -> list[str]:
        names = super().list_commands(context)
        return sorted(names, key=lambda name: (*_ORDER, name).index(name))


app = typer.Typer(
    name="kernelprune",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: [bold]kernelprune demo[/bold]. Each command's --help has examples.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kernelprune {kernelprune.__version__}")
        raise typer.Exit()


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Prune a CNN to a tenth of its connections, then run what is left, fast.

    [bold]train[/bold] a model, [bold]prune[/bold] it, [bold]export[/bold] one file;
    [bold]inspect[/bold], [bold]report[/bold], [bold]run[/bold] and [bold]bench[/bold] that file.
    """
