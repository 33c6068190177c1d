"""Text that comes from files and models: shown as what it is, and JSON read strictly.

Names, metadata and messages from a file may hold anything that Unicode has: codes that clear the
screen or set the window's title, marks that turn the reading direction around, characters that
nobody sees.
"""

from __future__ import annotations

import json
import math
from typing import Any

# Printable by Unicode's classes, and yet nothing is seen: fillers, variation selectors, the blank
# Braille pattern.
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | frozenset(
    map(chr, [*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
)


def plain(text: object, keep: str = "") -> str:
    """``str(text)`` with every character that is not seen, or does something, as its escape.

    Those are control characters, line ends, every kind of space but the blank, marks of the reading
    direction, characters without width, and lone surrogates: ``"a\\x1b[2J"`` becomes the eight
    characters ``a\\x1b[2J``. The characters of ``keep`` stay. Applied again, it changes nothing.
    """
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(
        character
        if character in keep or (character.isprintable() and character not in _UNSEEN)
        else _escaped(character)
        for character in shown
    )


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def read_json(content: bytes | str) -> Any:
    """The value of a JSON text, read strictly.

    Raises:
        ValueError: It is no JSON or no UTF-8, has a key twice, a number that is not finite or has
            thousands of digits, or is nested too deep; the message is one line.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    except ValueError as error:
        raise ValueError(plain(str(error).splitlines()[0][:120])) from None


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) == len(items):
        return found
    names = [name for name, _ in items]
    twice = next(name for position, name in enumerate(names) if name in names[:position])
    raise ValueError(f"it has the key '{plain(twice[:80])}' twice")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:40]} is out of range")
    return number
