"""Tables of text: what is shown in which width."""

from __future__ import annotations

import pytest

from kernelprune.columns import RULE, WIDE, Column, broken, cell_width, terminal_width, text_table

NAMES = ["stem", "backbone.features.2.block.0.conv", "backbone.features.12.block.0.conv"]
COLUMNS = (
    Column("layer", "name"),
    Column("output", spare=2),
    Column("multiply-adds", spare=1),
    Column("milliseconds each"),
    Column("remark", "words"),
)
ROWS = [(name, "512x112x112", "11,837,374,464", "1.500", "is kept as it is") for name in NAMES]


def test_a_wide_table_is_whole() -> None:
    """If this fails, something is broken or left out where there is room for all."""
    lines = text_table(COLUMNS, [*ROWS, RULE, ROWS[0]], 120).splitlines()
    assert len(lines) == 6 and lines[4] == "-" * max(map(len, lines))
    assert [line.split("  ")[0] for line in lines[1:4]] == NAMES
    assert all("11,837,374,464" in line and line.endswith("as it is") for line in lines[1:4])


@pytest.mark.parametrize("width", range(36, 110))
def test_nothing_is_lost_without_a_note(width: int) -> None:
    """If this fails, a table is wider than the terminal, or hides a name or a column."""
    text = text_table(COLUMNS, ROWS, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    note = " ".join(lines[-3:]) if "left out" in text else ""
    for column in COLUMNS:
        assert all(word in text for word in column.head.split()), column
        is_hidden = column.head in note.replace("\n", " ")
        cells = {row[COLUMNS.index(column)] for row in ROWS}
        if column.kind == "number":
            assert is_hidden != all(cell in text for cell in cells)
    end = lines[next(i for i, line in enumerate(lines) if "layer" in line)].find("layer")
    assert end == 0
    for name in NAMES:
        pieces = broken(name, "name", 20)
        assert "".join(piece.strip() for piece in pieces) == name


def test_the_least_important_goes_first() -> None:
    """If this fails, the columns that matter are those that a narrow terminal loses."""
    order = []
    for width in range(120, 40, -1):
        text = text_table(COLUMNS, ROWS, width).replace("\n", " ")
        if "left out" in text:
            hidden = text.split("width: ")[1].split(" (")[0]
            order += [] if hidden in order else [hidden]
    assert order == ["output", "output, multiply-adds"]


def test_the_note_says_what_would_do() -> None:
    """If this fails, who makes the window as wide as the note says still misses columns."""
    text = text_table(COLUMNS, ROWS, 60).replace("\n", " ")
    width = int(text.split("a width of ")[1].split()[0])
    whole = text_table(COLUMNS, ROWS, width)
    assert "left out" not in whole and len(whole.splitlines()) == 1 + len(ROWS)
    assert len(text_table(COLUMNS, ROWS, width - 1).splitlines()) > 1 + len(ROWS)


@pytest.mark.parametrize(
    ("cell", "kind", "width", "lines"),
    [
        ("backbone.features.12.conv", "name", 20, ["backbone.features.", "  12.conv"]),
        ("openvino-int8 (VNNI)", "name", 14, ["openvino-int8", "  (VNNI)"]),
        ("torch (an optimisation)", "name", 17, ["torch (an", "  optimisation)"]),
        ("x (optimisations)", "name", 16, ["x", "  (optimisations", "  )"]),
        ("x" * 20, "name", 12, ["x" * 12, "  " + "x" * 8]),
        ("畳み込み.層", "name", 9, ["畳み込み.", "  層"]),
        ("pad + winograd, 16 lanes", "words", 12, ["pad +", "winograd, 16", "lanes"]),
        ("12,345", "number", 3, ["12,345"]),
        ("", "words", 5, [""]),
    ],
)
def test_broken(cell: str, kind: str, width: int, lines: list[str]) -> None:
    """If this fails, names break anywhere, lose letters, or run into the next column."""
    assert broken(cell, kind, width) == lines


def test_control_codes() -> None:
    """If this fails, a layer's name clears the screen from within a printed table."""
    assert r"a\x1b[2J" in text_table([Column("layer", "name")], [["a\x1b[2J"]], 80)
    assert cell_width("e\u0301畳") == 3


def test_terminal_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, tables have another width than the terminal, or files get cut ones."""
    for told, width in (("97", 97), ("0", WIDE), ("many", WIDE), ("", WIDE)):
        monkeypatch.setenv("COLUMNS", told)
        assert terminal_width() == width
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr("sys.stdout", None)
    assert terminal_width() == WIDE
