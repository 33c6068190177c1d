"""Puts the words and charts of a page into its template. Needs jinja2."""

from __future__ import annotations

from importlib import resources

import jinja2
from markupsafe import Markup

from kernelprune.report.page.facts import Facts
from kernelprune.report.page.view import page
from kernelprune.text import plain


def _shown(value: object) -> object:
    """Names and texts of files without control codes; jinja2 then escapes what HTML would read."""
    return value if isinstance(value, Markup) else plain(value)


def render(facts: Facts) -> str:
    """The page's HTML."""
    files = resources.files("kernelprune.report.page")
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(lambda name: (files / name).read_text(encoding="utf-8")),
    )
    style = Markup((files / "page.css").read_text(encoding="utf-8"))
    return environment.get_template("page.html").render(style=style, **page(facts))
