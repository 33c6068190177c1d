"""The documents: every page is in the navigation, every link resolves, on the site and where the
repository is shown, and figures come from results. Builds no site; `make docs` does."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
HOOKS = runpy.run_path(str(ROOT / "docs" / "pages.py"))
REPOSITORY = "https://example.org/repository"

# Page -> the document that it is made of, relative to the repository.
SOURCES = {page: document for document, page in HOOKS["PAGES"].items()} | {
    path.name: f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))
}


def settings() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def navigation(entry: Any) -> list[str]:
    """The pages of a part of the navigation, in order."""
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return [page for value in values for page in navigation(value)]


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def without_code(markdown: str) -> str:
    return re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)


def anchors(document: str) -> set[str]:
    """The names that both GitHub and mkdocs give a document's headings."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", without_code(text_of(document)), re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.lower())
        if "--" not in words.replace(" ", "-"):  # there they differ
            found.add(words.strip().replace(" ", "-"))
    return found


def links(markdown: str) -> list[tuple[str, str]]:
    """Target and anchor of every link that does not leave for another site."""
    found = re.findall(r"\]\((?![a-z]+:)([^)#\s]*)#?([^)\s]*)\)", without_code(markdown))
    return [(target, anchor) for target, anchor in found]


def test_every_page_is_in_the_navigation() -> None:
    """If this fails, a document cannot be found on the site, or the site has a page twice."""
    pages = navigation(settings()["nav"])
    assert sorted(pages) == sorted(SOURCES)


@pytest.mark.parametrize("document", sorted(SOURCES.values()))
def test_anchors_of_links_exist(document: str) -> None:
    """If this fails, a link opens a document at its top in place of the section that it names."""
    for target, anchor in links(text_of(document)):
        path = (ROOT / document).parent / target if target else ROOT / document
        if anchor:
            name = str(path.resolve().relative_to(ROOT))
            assert anchor in anchors(name), f"{target}#{anchor}"


@pytest.mark.parametrize("page", sorted(SOURCES))
def test_links_of_pages_stay_on_the_site(page: str) -> None:
    """If this fails, a link that works in the repository leads nowhere on the site."""
    markdown = HOOKS["page_text"](text_of(SOURCES[page]), SOURCES[page], REPOSITORY)
    targets = [target for target, _ in links(markdown) if target]
    assert [target for target in targets if target not in SOURCES] == []


def test_links_into_the_repository() -> None:
    """If this fails, the site's links to results and sources are broken, or links inside of code
    are changed."""
    text = "[a](../bench/results) [b](../setup.py#x) [c](CPP.md#use)\n```\n[d](../setup.py)\n```\n"
    made = HOOKS["page_text"](text, "docs/CLI.md", REPOSITORY)
    assert f"[a]({REPOSITORY}/tree/main/bench/results)" in made
    assert f"[b]({REPOSITORY}/blob/main/setup.py#x) [c](CPP.md#use)" in made
    assert "[d](../setup.py)" in made


def test_lists_begin_after_an_empty_line() -> None:
    """If this fails, the site shows a list that follows a line of text as part of that line."""
    made = HOOKS["page_text"]("Text:\n- one\n  more\n- two\n", "docs/CLI.md", REPOSITORY)
    assert made == "Text:\n\n- one\n  more\n- two\n"


def test_reference_has_every_public_name() -> None:
    """If this fails, the reference lacks a function that users are told to call."""
    stub = text_of("kernelprune/__init__.pyi")
    names = set(re.findall(r"\b(\w+) as \1\b", stub))
    folders = {path.name for path in (ROOT / "kernelprune").iterdir() if path.is_dir()}
    listed = set(re.findall(r"^::: kernelprune\.(\w+)$", text_of("docs/API.md"), re.MULTILINE))
    errors = set(re.findall(r"^class (\w+)", text_of("kernelprune/errors.py"), re.MULTILINE))
    assert {"Engine", "export", "prune_connections"} <= names
    assert names - folders - errors - listed == set()


def test_addresses_are_those_of_the_package() -> None:
    """If this fails, the site leads to another repository than the package's own page."""
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    urls = tomllib.loads(text_of("pyproject.toml"))["project"]["urls"]
    found = settings()
    assert (found["repo_url"], found["site_url"]) == (urls["Source"], urls["Documentation"])


def test_figures_of_the_questions() -> None:
    """If this fails, the page of questions claims accuracies that no result has."""
    content = json.loads(text_of("bench/results/accuracy/reconstruction.json"))
    rows = [row for row in content["rows"] if row["asked"] == {"density": 0.1}]
    methods = ("l1", "l1, batch norms", "reconstruct l1", "reconstruct omp")
    values = {row["method"]: f"{100 * row['accuracy']:.1f}" for row in rows}
    text = text_of("docs/FAQ.md")
    shown = re.findall(r"^\| .* \| (\d+\.\d) \|$", text, re.MULTILINE)
    assert shown == [values[method] for method in methods]
    assert f"{100 * rows[0]['dense']:.1f} % before" in text
