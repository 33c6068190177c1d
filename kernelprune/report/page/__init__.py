"""One page about one model file: an HTML file that needs nothing beside it.

``facts`` reads, plans and measures; ``view`` turns that into words and charts; ``render`` puts them
into ``page.html`` with ``page.css``. Nothing on the page runs: no script, no file from elsewhere.
"""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from kernelprune.errors import Error
from kernelprune.files import name_of, write_text
from kernelprune.lazy import resolve
from kernelprune.report.page.facts import collect
from kernelprune.report.page.options import PageOptions, Strengths

__all__ = ["PageOptions", "Strengths", "write_page"]


def write_page(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: PageOptions | None = None,
    **changes: Any,
) -> None:
    """Writes one self-contained HTML page about a model file: sizes, times, each layer, the graph,
    which connections are kept, which kernels were chosen, and on which machine.

    Args:
        path: The model file.
        out: The page, ``.html``.
        options: Everything at once.
        changes: Single options, see :class:`PageOptions`, such as ``dense="dense.safetensors"``;
            they go before ``options``.

    Raises:
        Error: No such file, an option is out of range, or the page cannot be written.
        FormatError: A file is not a valid model.
        ShapeError: The dense network takes other inputs.
        DeviceError: The instruction set is not available here.
        MissingPackage: jinja2 is not installed.
    """
    # Before anything is measured.
    render = resolve("kernelprune.report.write_page", "kernelprune.report.page.render", "render")
    known = {entry.name for entry in fields(PageOptions)}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise Error(f"write_page has no option {', '.join(unknown)}; there are: {sorted(known)}")
    facts = collect(Path(name_of(path)), replace(options or PageOptions(), **changes))
    write_text(out, render(facts), "the page")
