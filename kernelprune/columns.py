"""Tables as wide as the terminal: which columns are shown, how wide they are, where words break.

Numbers are never cut. Names of layers go on in another line, behind a dot if they can, and words
break at blanks. Where that does not make enough room, the least important columns are left out,
and a note below the table says which, and how wide a terminal shows all.
"""

from __future__ import annotations

import os
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kernelprune.text import plain

# Of files and pipes, which have no width of their own: rows of most tables stay whole.
WIDE = 150
# A row that is a line across the table.
RULE: tuple[str, ...] = ()
GAP = "  "

_NARROW = 8  # what names and words are cut to where nothing else is left to give
_KINDS = ("name", "words", "number")
# Where lines may break, the best places first, and whether only in the second half of a line.
_BREAKS = {"name": ((" ./", True), ("_-+", True), (" ", False)), "words": ((" ", False),)}
_INDENT = "  "  # of what a name goes on with


@dataclass(frozen=True)
class Column:
    """``kind``: "number" (right-aligned, one line), "name" or "words" (left-aligned, may break).
    ``spare``: 0 for what is always shown; of the others the highest is left out first. ``least``:
    names that are longer get so much before columns are left out."""

    head: str
    kind: str = "number"
    spare: int = 0
    least: int = 20


@dataclass(frozen=True)
class Layout:
    """``shown``: the columns by position, with their ``widths``; ``note``: what is left out, empty
    if nothing is."""

    shown: tuple[int, ...]
    widths: tuple[int, ...]
    note: str


def terminal_width() -> int:
    """Characters in a line of standard output: what the environment variable COLUMNS says, else
    the terminal, else ``WIDE``."""
    told = os.environ.get("COLUMNS", "")
    if told.isascii() and told.isdigit() and int(told) > 0:
        return int(told)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or WIDE
    except (OSError, ValueError, AttributeError):  # no terminal, or no file at all
        return WIDE


def layout(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> Layout:
    """How a table of plain cells, with two blanks between columns, is shown in ``width``."""
    most, least = [], []
    for place, column in enumerate(columns):
        cells = [row[place] for row in rows if row]
        most.append(max(map(cell_width, [column.head, *cells])))
        least.append(_least(column, cells, most[-1]))
    shown = list(range(len(columns)))
    spare = [place for place in shown if columns[place].spare]
    spare.sort(key=lambda place: columns[place].spare)
    while spare and _total(least, shown) > width:
        shown.remove(spare.pop())
    if _total(least, shown) > width:
        for place, column in enumerate(columns):
            least[place] = min(least[place], _NARROW if column.kind != "number" else width)
    # What is left goes to names first: a head of two words costs a line, a name one for each layer.
    widths, left = list(least), width - _total(least, shown)
    for place in sorted(shown, key=lambda place: _KINDS.index(columns[place].kind)):
        more = max(0, min(left, most[place] - least[place]))
        widths[place] += more
        left -= more
    hidden = [column.head for place, column in enumerate(columns) if place not in shown]
    whole = _total(most, range(len(columns)))
    note = f"left out at this width: {', '.join(hidden)} (a width of {whole} shows all)"
    return Layout(tuple(shown), tuple(widths[place] for place in shown), note if hidden else "")


def _least(column: Column, cells: Sequence[str], most: int) -> int:
    """The width below which a column gives up its table's spare ones."""
    if column.kind == "name":
        return min(most, column.least)
    words = column.head.split()
    if column.kind == "words":
        words += [word for cell in cells for word in cell.split()]
        return max(min(most, 12), min(most, 24, max(map(cell_width, words), default=0)))
    return max(map(cell_width, [*words, *cells]), default=0)


def _total(widths: Sequence[int], shown: Iterable[int]) -> int:
    own = [widths[place] for place in shown]
    return sum(own) + len(GAP) * (len(own) - 1)


def broken(cell: str, kind: str, width: int) -> list[str]:
    """The lines of a cell in a column of this ``kind``; nothing of it is lost but blanks."""
    if kind == "number" or cell_width(cell) <= width:
        return [cell]
    lines, indent = [], ""
    while cell:
        room = width - len(indent)
        end = len(cell) if cell_width(cell) <= room else _break(cell, kind, room)
        lines.append(indent + cell[:end].rstrip(" "))
        cell = cell[end:].lstrip(" ")
        indent = _INDENT if kind == "name" and width >= _NARROW else ""
    return lines


def _break(cell: str, kind: str, room: int) -> int:
    """Where a line of at most ``room`` ends: behind the last good place, else anywhere."""
    fits = 1
    while fits < len(cell) and cell_width(cell[: fits + 1]) <= room:
        fits += 1
    for marks, late in _BREAKS[kind]:
        end = 1 + max(cell.rfind(mark, 0, fits + (mark == " ")) for mark in marks)
        if end > (fits // 2 if late else 0):
            return end
    return fits


def text_table(
    columns: Sequence[Column], rows: Sequence[Sequence[object]], width: int | None = None
) -> str:
    """The table as text, with a note below if columns are left out. Rows are cells as they are, or
    ``RULE``. ``width``: None takes that of the terminal."""
    width = terminal_width() if width is None else width
    cells = [[plain(cell) for cell in row] for row in rows]
    found = layout(columns, cells, width)
    lines = _row([column.head for column in columns], columns, found, head=True)
    for row in cells:
        if row:
            lines += _row(row, columns, found)
        else:
            lines.append("")
    rule = "-" * max(map(cell_width, lines))
    lines = [line or rule for line in lines]
    if found.note:
        lines += textwrap.wrap(found.note, max(width, 2 * _NARROW), break_on_hyphens=False)
    return "\n".join(lines)


def _row(
    cells: Sequence[str], columns: Sequence[Column], found: Layout, head: bool = False
) -> list[str]:
    parts = []
    for place, width in zip(found.shown, found.widths, strict=True):
        column = columns[place]
        parts.append(broken(cells[place], "words" if head else column.kind, width))
    height = max(map(len, parts))
    lines = []
    for number in range(height):
        line = []
        for place, width, part in zip(found.shown, found.widths, parts, strict=True):
            # Heads stand on the line of the cells below.
            at = number - (height - len(part)) if head else number
            text = part[at] if 0 <= at < len(part) else ""
            space = " " * (width - cell_width(text))
            line.append(space + text if columns[place].kind == "number" else text + space)
        lines.append(GAP.join(line).rstrip())
    return lines


def cell_width(text: str) -> int:
    """Columns of a terminal that plain ``text`` takes."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(letter)
        else 2
        if unicodedata.east_asian_width(letter) in "WF"
        else 1
        for letter in text
    )
