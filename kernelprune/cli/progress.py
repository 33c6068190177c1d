"""Shows on a terminal what a long command is doing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from kernelprune.cli.console import PlainConsole
from kernelprune.text import plain


@contextmanager
def show_progress() -> Iterator[Callable[[str, float | None], None]]:
    """A line on standard error while the block runs, gone afterwards; nothing outside a terminal.

    The function that it gives takes what is being done and the share that is done, or None.
    """
    console = PlainConsole(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("loading", total=None)

        def show(doing: str, share: float | None) -> None:
            bar.update(
                task,
                description=plain(doing),
                total=None if share is None else 1.0,
                completed=share or 0.0,
            )

        yield show
