"""Charts as SVG, drawn by hand: rectangles whose colours the page's style sheet gives, by class.

What a chart says of its parts stands in ``<title>`` elements, which browsers show as tooltips.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from kernelprune.text import plain


@dataclass(frozen=True)
class Bar:
    """``share`` of the whole height that is filled, 0..1, or None for a gap, and of that what
    stands out at its foot (``part``, 0..1; 1 is all of it). ``title``: what it is."""

    share: float | None
    title: str
    part: float = 1.0


def meter(share: float, kind: str = "fill") -> str:
    """One bar from left to right on its track; it fills what it is in."""
    width = _number(100 * min(max(share, 0.0), 1.0))
    return (
        '<svg class="meter" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="6"/>'
        f'<rect class="{kind}" width="{width}" height="6"/></svg>'
    )


def columns(bars: Sequence[Bar], label: str) -> str:
    """Bars side by side on tracks of the full height; it fills the width of what it is in."""
    parts = []
    for place, bar in enumerate(bars):
        if bar.share is None:
            continue
        filled = 100 * min(max(bar.share, 0.0), 1.0)
        strong = filled * min(max(bar.part, 0.0), 1.0)
        x = 10 * place + 1
        rects = [_rect("track", x, 8, 100)]
        if filled > strong:
            rects.append(_rect("pale", x, 8, filled))
        rects.append(_rect("fill", x, 8, strong))
        parts.append(f"<g><title>{_words(bar.title)}</title>{''.join(rects)}</g>")
    return (
        f'<svg class="columns" viewBox="0 0 {10 * max(len(bars), 1)} 100" role="img" '
        f'preserveAspectRatio="none" aria-label="{_words(label)}">{"".join(parts)}</svg>'
    )


def _rect(kind: str, x: float, width: float, height: float) -> str:
    top, high = _number(100 - height), _number(height)
    return f'<rect class="{kind}" x="{x}" y="{top}" width="{width}" height="{high}"/>'


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _words(text: str) -> str:
    return html.escape(plain(text))
