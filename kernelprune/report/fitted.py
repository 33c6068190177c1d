"""A rich table that knows how wide the terminal is, and the cells of all tables.

Cells are texts, not markup: names and metadata of a file are shown as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

from kernelprune.columns import RULE, Column, broken, layout
from kernelprune.text import plain


def text(words: object, style: str = "") -> Text:
    """Words as they are: no markup, no control characters."""
    return Text(plain(words), style)


def add_row(table: Table, *cells: object) -> None:
    """A row of words; a cell may also be a ``Text`` of its own style."""
    table.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in cells))


class FittedTable:
    """Rows are added, then a rich console prints it in its width, see ``kernelprune/columns.py``.
    A note below says what is left out there. ``caption``: more to say below."""

    def __init__(self, title: str | None, columns: Sequence[Column]) -> None:
        self.title = title
        self.columns = list(columns)
        self.rows: list[Sequence[Text]] = []
        self.caption = ""

    def add(self, *cells: object) -> None:
        """A row; a cell may also be a ``Text`` of one line, with a style of its own."""
        self.rows.append([cell if isinstance(cell, Text) else text(cell) for cell in cells])

    def add_section(self) -> None:
        """A line across the table, before the next row."""
        self.rows.append([])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[object]:
        cells = [[cell.plain for cell in row] if row else RULE for row in self.rows]
        found = layout(self.columns, cells, options.max_width)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
        places = list(zip(found.shown, found.widths, strict=True))
        heads = [broken(self.columns[place].head, "words", width) for place, width in places]
        height = max(map(len, heads))
        for (place, width), head in zip(places, heads, strict=True):
            number = self.columns[place].kind == "number"
            table.add_column(
                Text("\n" * (height - len(head)) + "\n".join(head)),
                justify="right" if number else "left",
                no_wrap=True,
                width=width,
            )
        for row in self.rows:
            if not row:
                table.add_section()
                continue
            shown = []
            for place, width in places:
                cell = row[place]
                lines = broken(cell.plain, self.columns[place].kind, width)
                shown.append(cell if len(lines) == 1 else Text("\n".join(lines), cell.style))
            add_row(table, *shown)
        if self.title is not None:
            yield text(self.title, "table.title")
        yield table
        for below in (found.note, self.caption):
            if below:
                yield text(below, "table.caption")
        yield Text()
