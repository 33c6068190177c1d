"""Hooks of mkdocs: documents from beside ``docs`` become pages too, and every link works in both
places, on the site and where the repository is shown.

Documents link to each other, to results and to sources by paths in the repository. A link to a
document becomes one to its page, any other one leads into the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

# Document outside of docs -> its page. Those in docs are pages of their own name.
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "ARCHITECTURE.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "THIRD_PARTY_NOTICES.md": "THIRD_PARTY_NOTICES.md",
    "bench/README.md": "MEASUREMENTS.md",
    "csrc/README.md": "ENGINE.md",
    "examples/README.md": "EXAMPLES.md",
    "kernelprune/format/FORMAT.md": "FORMAT.md",
    "recipes/README.md": "RECIPES.md",
}

_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
# What docstrings call a name: :meth:`run`, :class:`~kernelprune.prune.Plan`.
_ROLE = re.compile(r":(?:attr|class|func|meth|mod):<code>~?\.?([^<]*)</code>")
_FENCE = re.compile(r"^\s*(```|~~~)")
_ITEM = re.compile(r"^([-*]|\d+\.) ")


def on_files(files: Any, config: Any) -> Any:
    """Adds the documents from beside ``docs``."""
    from mkdocs.structure.files import File

    for document, page in PAGES.items():
        content = (ROOT / document).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The text of a page as mkdocs wants it."""
    documents = {shown: document for document, shown in PAGES.items()}
    document = documents.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return page_text(markdown, document, config.repo_url.rstrip("/"))


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Names in docstrings without their roles."""
    return _ROLE.sub(r"<code>\1</code>", html)


def page_text(markdown: str, document: str, repository: str) -> str:
    """``markdown`` of a document of the repository with the links of its page, and with an empty
    line before each list, which a paragraph may otherwise swallow."""
    lines: list[str] = []
    fenced = False
    for line in markdown.splitlines():
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            line = _LINK.sub(lambda link: _moved(link, document, repository), line)
            before = lines[-1] if lines else ""
            if _ITEM.match(line) and before.strip() and not re.match(r"\s|[-*] |\d+\. ", before):
                lines.append("")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _moved(link: re.Match[str], document: str, repository: str) -> str:
    path = posixpath.normpath(posixpath.join(posixpath.dirname(document), link[1]))
    anchor = link[2] or ""
    if path in PAGES:
        return f"]({PAGES[path]}{anchor})"
    if path.startswith("docs/") and path.endswith(".md"):
        return f"]({path.removeprefix('docs/')}{anchor})"
    if not (ROOT / path).exists():
        return link[0]  # mkdocs will name it
    kind = "tree" if (ROOT / path).is_dir() else "blob"
    return f"]({repository}/{kind}/main/{path}{anchor})"
