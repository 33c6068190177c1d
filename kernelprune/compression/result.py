"""What ``kernelprune.compress`` gives."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass, field
from typing import Any

from kernelprune.columns import Column, text_table
from kernelprune.compression.page import page
from kernelprune.compression.points import Point
from kernelprune.files import write_bytes, write_text
from kernelprune.format.reader import read_bytes
from kernelprune.format.writer import to_bytes
from kernelprune.runtime.preprocessing import Preprocessing
from kernelprune.text import plain

_WIDTH = 80
_COLUMNS = (
    Column("network", "name"),
    Column("ms"),
    Column("faster"),
    Column("density", spare=2),
    Column("cosine", spare=1),
    Column("agree"),
    Column("metric"),
    Column("drop"),
    Column("held out", spare=3),
    Column("", "words"),
)


@dataclass(frozen=True)
class Compressed:
    """A compressed network: its file, and how it came about. ``print`` shows a table.

    ``content``: the model file. ``chosen``: the point that it is; ``points``: all networks that
    were made and measured, the dense ones first. ``judged_by``: what drops are of. ``max_drop``:
    what a drop may be, None without a limit. ``confirmed``: what ``confirm`` gave for the dense
    network and for this one. ``images``: how many were fitted to, judged, and were held out.
    ``machine``: where times were measured, for ``batch`` images on ``threads`` threads.
    """

    content: bytes = field(repr=False)
    chosen: Point
    points: tuple[Point, ...]
    source: str
    asked: str
    judged_by: str
    max_drop: float | None
    confirmed: tuple[float, float] | None
    images: tuple[int, int, int]
    batch: int
    threads: int
    machine: dict[str, Any] = field(repr=False)
    notes: tuple[str, ...] = ()

    def save(
        self, path: str | os.PathLike[str], preprocessing: Preprocessing | None = None
    ) -> None:
        """Writes the model file, which says how to prepare images if ``preprocessing`` is given.
        Raises Error when it cannot."""
        content = self.content
        if preprocessing is not None:
            graph, metadata = read_bytes(content, "the model")
            content = to_bytes(graph, metadata | {"preprocessing": preprocessing.to_json()})
        write_bytes(path, content, "the model file")

    def report(self, path: str | os.PathLike[str]) -> None:
        """Writes one page of HTML that needs no other file. Raises Error when it cannot."""
        write_text(path, page(self.to_dict()), "the report")

    def to_dict(self) -> dict[str, Any]:
        """Everything but the file, as plain numbers, strings and lists (json)."""
        return {
            "source": self.source,
            "asked": self.asked,
            "chosen": self.chosen.name,
            "judged_by": self.judged_by,
            "max_drop": self.max_drop,
            "confirmed": None if self.confirmed is None else list(self.confirmed),
            "images": list(self.images),
            "batch": self.batch,
            "threads": self.threads,
            "machine": self.machine,
            "notes": list(self.notes),
            "bytes": len(self.content),
            "points": [point.to_dict() for point in self.points],
        }

    def __str__(self) -> str:
        rows = [cells(point, point is self.chosen) for point in self.points]
        lines = [text_table(_COLUMNS, rows, _WIDTH)]
        lines += _wrapped(f"drop: {self.judged_by}")
        lines += _wrapped(said(self))
        for note in self.notes:
            lines += _wrapped(f"note: {note}")
        return "\n".join(lines)


def said(net: Compressed) -> str:
    """The result in a sentence."""
    found = net.chosen
    words = (
        f"{found.name}: {found.milliseconds:.3g} ms, {found.speed_up:.3g} times as fast as the "
        f"dense float32 network; drop {found.drop:.4f}"
    )
    if net.max_drop is not None:
        words += f" (at most {net.max_drop:g})"
    words += f", on held-out images {found.held_out_drop:.4f}"
    if net.confirmed is not None:
        words += f"; confirm: {net.confirmed[0]:.4f} -> {net.confirmed[1]:.4f}"
    return words


def cells(point: Point, chosen: bool) -> list[str]:
    """A row of the table."""
    agreement = point.likeness.agreement
    words = [word for word, is_so in (("chosen", chosen), ("tuned", point.fine_tuned)) if is_so]
    if not point.holds:
        words.append("over")
    return [
        point.name,
        f"{point.milliseconds:.3f}",
        f"{point.speed_up:.2f}",
        f"{point.density:.1%}",
        f"{point.likeness.cosine:.4f}",
        "-" if agreement is None else f"{agreement:.1%}",
        "-" if point.metric is None else f"{point.metric:.4f}",
        f"{point.drop:.4f}",
        f"{point.held_out_drop:.4f}",
        ", ".join(words),
    ]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(plain(text), _WIDTH)
