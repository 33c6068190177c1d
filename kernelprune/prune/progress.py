"""What a long calculation shows: a bar on a terminal, but only when there is time to read it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

# Called with what is being done and the share of it that is done, 0..1.
Progress = Callable[[str, float], None]

_PATIENCE = 2.0  # seconds


@contextmanager
def told(progress: Progress | None) -> Iterator[Progress]:
    """``progress``, or without one a bar on standard error that appears after two seconds, if that
    is a terminal."""
    if progress is not None:
        yield progress
        return
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield lambda doing, share: None
        return
    with ExitStack() as stack:
        yield _Bar(stack)


class _Bar:
    def __init__(self, stack: ExitStack):
        self._stack = stack
        self._started = time.perf_counter()
        self._bar: Any = None

    def __call__(self, doing: str, share: float) -> None:
        if self._bar is None:
            if time.perf_counter() - self._started < _PATIENCE:
                return
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = self._stack.enter_context(
                Progress(
                    TextColumn("{task.description}", markup=False),
                    BarColumn(),
                    TimeElapsedColumn(),
                    console=Console(stderr=True),
                    transient=True,
                )
            )
            self._task = self._bar.add_task(doing, total=1.0)
        self._bar.update(self._task, description=doing, completed=share)
