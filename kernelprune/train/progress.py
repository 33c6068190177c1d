"""What a training shows: a live bar on a terminal, one line per epoch in a log file."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from kernelprune.errors import Error
from kernelprune.text import plain

# How much of the shown loss and accuracy is the past; about the last 50 steps.
_SMOOTHING = 0.98


class TrainProgress:
    """Context manager; ``console=None`` shows nothing.

    Args:
        title: Such as ``"train"``.
        total_steps: Of the whole training.
        start_step: Where it goes on.
        console: Where to show it.
        tensorboard: Folder for TensorBoard's files; None writes none.
        measure: What is measured on validation images: "accuracy", or "loss" of another task, which
            has no accuracy.

    Raises:
        Error: ``tensorboard`` was asked for and is not installed, or the folder cannot be written.
    """

    def __init__(
        self,
        title: str,
        total_steps: int,
        start_step: int,
        console: Console | None,
        tensorboard: str | None = None,
        measure: str = "accuracy",
    ) -> None:
        self.title = title
        self.classifies = measure == "accuracy"
        self.console = console
        self.total_steps = total_steps
        self.loss = 0.0
        self.accuracy: float | None = 0.0 if self.classifies else None
        self.images = 0
        self.weight = 0.0
        self.started = time.perf_counter()
        self.writer: Any = None
        if tensorboard is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter

                self.writer = SummaryWriter(tensorboard)
            except ImportError as error:
                raise Error(
                    "TensorBoard's files need its package: pip install tensorboard"
                ) from error
            except OSError as error:
                raise Error(f"{tensorboard}: cannot write TensorBoard's files: {error}") from error
        self.bar: Progress | None = None
        if console is not None and console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description:<12}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}", markup=False),
                TimeRemainingColumn(),
                console=console,
            )
            self.task = self.bar.add_task(
                title, total=total_steps, completed=start_step, status="", start=True
            )

    def __enter__(self) -> TrainProgress:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        if self.writer is not None:
            self.writer.close()

    def step(self, loss: float, accuracy: float, images: int) -> None:
        """Notes one batch: its loss, the share it got right, its size."""
        self.weight = _SMOOTHING * self.weight + 1.0
        self.loss += (loss - self.loss) / self.weight
        if self.accuracy is not None:
            self.accuracy += (accuracy - self.accuracy) / self.weight
        self.images += images
        if self.bar is not None:
            self.bar.update(self.task, advance=1, status=self.status())

    def status(self) -> str:
        rate = self.images / max(time.perf_counter() - self.started, 1e-9)
        right = "" if self.accuracy is None else f"  accuracy {self.accuracy:.1%}"
        return f"loss {self.loss:.3f}{right}  {rate:,.0f} images/s"

    def epoch(self, step: int, validation: float | None) -> None:
        """Writes one line at the end of an epoch."""
        if self.writer is not None:
            values = {"loss": self.loss, "accuracy": self.accuracy, "validation": validation}
            for name, value in values.items():
                if value is not None:
                    self.writer.add_scalar(f"{self.title}/{name}", value, step)
        if self.console is None:
            return
        checked = ""
        if validation is not None:
            checked = f"  validation {validation:{'.2%' if self.classifies else '.4g'}}"
        self.console.print(
            f"{self.title:<12} step {step}/{self.total_steps}  {self.status()}{checked}",
            highlight=False,
            markup=False,
            emoji=False,
        )


class PhaseProgress:
    """Shows the phases of a greedy selection: a bar for the present one on a terminal, one line at
    the end of each in a log file. Called as ``kernelprune.prune.discrimination.Progress`` says."""

    def __init__(self, console: Console | None) -> None:
        self.console = console
        self.started = time.perf_counter()
        self.bar: Progress | None = None
        if console is not None and console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}", markup=False),
                console=console,
                transient=True,
            )
            self.task = self.bar.add_task("", total=1, status="")

    def __enter__(self) -> PhaseProgress:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, phase: str, done: int, total: int, loss: float) -> None:
        phase = plain(phase)  # has a layer's name in it
        status = f"loss {loss:.4f}"
        if self.bar is not None:
            self.bar.update(
                self.task, description=phase, completed=done, total=total, status=status
            )
        if self.console is not None and done >= total:
            seconds = time.perf_counter() - self.started
            self.console.print(
                f"{phase}  {done}/{total}  {status}  {seconds:.0f} s",
                highlight=False,
                markup=False,
                emoji=False,
            )
