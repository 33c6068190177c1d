"""Shows on a terminal what a long command is doing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@contextmanager
def show_progress() -> Iterator[Callable[[str, float | None], None]]:
    """A line on standard error while the block runs, gone afterwards; nothing outside a terminal.

    The function that it gives takes what is being done and the share that is done, or None.
    """
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
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
                description=doing,
                total=None if share is None else 1.0,
                completed=share or 0.0,
            )

        yield show
