"""Networks whose pages are tested, and what a page holds, as a parser of HTML sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from graphs import GraphBuilder
from int8_files import Int8Builder, quantization

# Names of nodes hold no blanks and no control characters, metadata may.
EVIL = [
    "</title><script>alert(1)</script>",
    '"><img/src=x/onerror=alert(1)>',
    "</style><style>body{display:none}",
    "{{7*7}}{%raw%}",
    "a\u202eb",
    "<svg/onload=alert(1)>'&amp;",
]


def small(path: Path) -> Path:
    """Two inputs, two outputs, a skipped layer and nodes without weights."""
    build = GraphBuilder(np.random.default_rng(3))
    x = build.input((3, 8, 8), "left")
    z = build.input((3, 8, 8), "right")
    stem = build.conv2d(x, 8, padding=(1, 1, 1, 1), density=0.5)
    other = build.conv2d(z, 8, padding=(1, 1, 1, 1), density=0.5)
    y = build.conv2d(stem, 8, padding=(1, 1, 1, 1), density=0.3, residual=other)
    pooled = build.pool("max_pool2d", y, (2, 2), (2, 2))
    flat = build.node("flatten", [pooled], (128,))
    path.write_bytes(build.file(build.linear(flat, 5), stem))
    return path


def of_bytes(path: Path) -> Path:
    """A layer of integers between float32 ones: a mixed file."""
    build = Int8Builder(np.random.default_rng(5))
    kind = quantization(0.05, 128)
    x = build.quantized(build.input((3, 8, 8)), kind)
    y = build.integer_conv2d(x, 8, kind, padding=(1, 1, 1, 1))
    y = build.integer_conv2d(y, 8, None, padding=(1, 1, 1, 1))
    path.write_bytes(build.file(build.conv2d(y, 4, density=0.5)))
    return path


def resnet152(path: Path, density: float = 0.02) -> Path:
    """Its 155 layers with their channels, pruned; on small images, so that nothing takes long."""
    build = GraphBuilder(np.random.default_rng(7))
    y = build.conv2d(build.input((3, 32, 32)), 64, (7, 7), (2, 2), (3, 3, 3, 3), activation="relu")
    y = build.pool("max_pool2d", y, (3, 3), (2, 2), (1, 1, 1, 1))
    for blocks, width, first in ((3, 64, 1), (8, 128, 2), (36, 256, 2), (3, 512, 2)):
        for block in range(blocks):
            stride = (first, first) if block == 0 else (1, 1)
            skipped = y
            if block == 0:
                skipped = build.conv2d(y, 4 * width, (1, 1), stride, density=density)
            y = build.conv2d(y, width, (1, 1), density=density, activation="relu")
            pad = (1, 1, 1, 1)
            y = build.conv2d(y, width, (3, 3), stride, pad, activation="relu", density=density)
            y = build.conv2d(
                y, 4 * width, (1, 1), activation="relu", density=density, residual=skipped
            )
    y = build.node("global_avg_pool", [y], (2048, 1, 1))
    y = build.node("flatten", [y], (2048,))
    path.write_bytes(build.file(build.linear(y, 1000, density=0.1)))
    return path


@dataclass
class Page(HTMLParser):
    """A page's elements: ``tags`` in order with their attributes, all ``text``, cells of the first
    column of the table of layers (``layers``), names of the rows of the network (``network``)."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""
    layers: list[str] = field(default_factory=list)
    network: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "th" and "tbody" in self._inside:
            self.layers.append("")
        if tag == "b" and self._inside[-1:] == ["li"]:
            self.network.append("")
        if tag not in ("meta", "img", "link"):
            self._inside.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop() == tag, f"{tag} closes another element"

    def handle_data(self, data: str) -> None:
        if self._inside[-1:] != ["style"]:
            self.text += data
        if self._inside[-1:] == ["th"] and self.layers and "tbody" in self._inside:
            self.layers[-1] += data
        if self._inside[-2:] == ["li", "b"]:
            self.network[-1] += data


def parsed(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    return page
