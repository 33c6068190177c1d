"""Text of files: shown as what it is; JSON that is read strictly."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from kernelprune.errors import Error
from kernelprune.text import plain, read_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv1.weight", "conv1.weight"),
        ("größe 畳み込み", "größe 畳み込み"),
        ("a\x1b[2J\x07\x9b0m", r"a\x1b[2J\x07\x9b0m"),
        ("a\nb\r\tc\x7f", r"a\x0ab\x0d\x09c\x7f"),
        ("\u202eevil\u2066\u200b\ufeff", r"\u202eevil\u2066\u200b\ufeff"),
        ("\u2028\xa0\u3000", r"\u2028\xa0\u3000"),
        ("a\ufe0f\u3164\u2800\U000e0041\U000e0100", r"a\ufe0f\u3164\u2800\U000e0041\U000e0100"),
        ("\udcff", r"\udcff"),
        ("[/x] [bold]", "[/x] [bold]"),
    ],
)
def test_plain(text: str, shown: str) -> None:
    """If this fails, a name of a file moves the cursor, hides a part of itself, or is changed."""
    assert plain(text) == shown
    assert plain(plain(text)) == shown


def test_nothing_invisible_is_left() -> None:
    """If this fails, some character of Unicode controls a terminal or is not seen by a reader."""
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    left = set(plain(everything)) - {" "}
    classes = {unicodedata.category(character)[0] for character in left}
    assert classes == {"L", "M", "N", "P", "S"}  # no other (C), no separators (Z)
    assert plain("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_messages_are_plain() -> None:
    """If this fails, an Error that quotes a file carries its control codes to the terminal."""
    assert str(Error("layer '\x1b[31m\u202e'\nsecond line")) == (
        "layer '\\x1b[31m\\u202e'\nsecond line"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "key 'a' twice"),
        ('{"a": {"\\u001b": 1, "\\u001b": 2}}', r"key '\\x1b' twice"),
        ("[NaN]", "NaN is no number"),
        ("[-Infinity]", "Infinity is no number"),
        ("[1e999]", "1e999 is out of range"),
        ("[" + "9" * 5000 + "]", "digits"),
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ("", "Expecting value"),
        (b"\xff{}", "byte 0 is not UTF-8"),
        ('{"a": 1} x', "Extra data"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_json_is_strict(text: str | bytes, message: str) -> None:
    """If this fails, a file with two meanings is taken by one of them, or ends in a traceback."""
    with pytest.raises(ValueError, match=message) as caught:
        read_json(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_json_is_read() -> None:
    """If this fails, what we write ourselves is refused or changed."""
    assert read_json(b'{"a": [1, -2.5e3, null, true, "\\u00e4"]}') == {
        "a": [1, -2500.0, None, True, "ä"]
    }
