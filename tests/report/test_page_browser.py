"""The page in a real browser: Debian's package chromium, where it is installed."""

from __future__ import annotations

import functools
import html
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report import pages

from kernelprune.report import Strengths, write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium: apt-get install --no-install-recommends chromium"
)
HEIGHT = 2400
# A frame of so many pixels, for a browser's own window is never narrower than 500. What it finds is
# read from the document that the browser dumps.
FRAME = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" style="border:0;width:{width}px;height:{height}px" srcdoc="{page}"></iframe>
<script>
window.onload = () => {{
  const inside = document.getElementById("page").contentDocument, root = inside.documentElement;
  const spread = [...inside.querySelectorAll(".card, h1, figure, dd")].filter(
    each => !each.closest(".scroll") && each.scrollWidth > each.clientWidth + 1);
  const unseen = [...inside.images].filter(each => !each.complete || each.naturalWidth === 0);
  document.body.dataset.found = [root.scrollWidth, root.scrollHeight, spread.length,
    unseen.length, inside.images.length].join(" ");
}};
</script>"""


def browser(folder: Path, page: Path, width: int, *options: str) -> tuple[str, str]:
    """What the browser says on standard output, and of its log the lines about the page."""
    frame = folder / f"frame-{width}.html"
    text = html.escape(page.read_text(encoding="utf-8"))
    frame.write_text(FRAME.format(width=width, height=HEIGHT, page=text), encoding="utf-8")
    assert CHROMIUM is not None
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *(f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr"),
        *(f"--window-size={max(width, 500)},{HEIGHT}", *options, frame.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, "\n".join(re.findall(r".*CONSOLE.*", done.stderr))


def measured(folder: Path, page: Path, width: int) -> tuple[list[int], str]:
    """Width and height of the page, elements wider than their place, pictures that are not shown,
    all pictures; and what the console says."""
    dump, said = browser(folder, page, width, "--dump-dom")
    found = re.search(r'data-found="([\d ]+)"', dump)
    assert found, dump[-500:]
    return [int(number) for number in found[1].split()], said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@functools.cache
def page_of(name: str, folder: Path) -> Path:
    make, options = {
        "small": (pages.small, {"time": True, "seconds": 0.01}),
        "bytes": (pages.of_bytes, {"time": True, "seconds": 0.01, "batch": 16}),
        "resnet152": (pages.resnet152, {"time": False}),
    }[name]
    layers = {"a.layer.of.a.long.name.conv2d": [3, 5], "b": [0, 7]}
    strengths = Strengths([0.1, 0.2, 0.4], layers, {each: [0, 2] for each in layers})
    out = folder / f"{name}.html"
    write_page(make(folder / f"{name * 9}.safetensors"), out, strengths=strengths, **options)
    return out


@pytest.mark.parametrize(
    ("name", "width"), [("small", 1280), ("small", 400), ("bytes", 400), ("resnet152", 400)]
)
def test_page_fits(name: str, width: int, folder: Path) -> None:
    """If this fails, the page must be moved sideways on a telephone, words leave their cards, a
    picture is not shown, or the browser finds a fault in the page."""
    page = page_of(name, folder)
    (wide, high, spread, unseen, pictures), said = measured(folder, page, width)
    assert said == ""
    assert (wide, spread, unseen) == (width, 0, 0)
    assert high > 1000 and pictures == page.read_text().count("<img ")


@pytest.mark.parametrize(("width", "dark"), [(400, False), (1280, True)])
def test_screenshot(width: int, dark: bool, folder: Path) -> None:
    """If this fails, the page is blank, or as bright in the dark."""
    out = folder / f"{width}-{dark}.png"
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    _, said = browser(folder, page_of("small", folder), width, f"--screenshot={out}", *scheme)
    assert said == ""
    pixels = np.asarray(Image.open(out).convert("RGB")).astype(int)[:, :width]
    background = pixels[4, 4]
    assert (background.mean() < 60) == dark
    differs = np.abs(pixels - background).max(axis=2) > 40
    assert 0.02 < differs.mean() < 0.6
    # Text at the top and charts in the accent colour: more green than red by far.
    assert differs[:200].mean() > 0.005
    assert (pixels[..., 1] - pixels[..., 0] > 60).mean() > 0.01


def test_faults_are_found(folder: Path) -> None:
    """If this fails, the two tests above pass for any page."""
    broken = folder / "broken.html"
    text = page_of("small", folder).read_text()
    wide = '<figure style="width:50px"><p style="width:900px">x</p></figure><img src="data:,x">'
    broken.write_text(text.replace("<main>", f"<main><script>1</script>{wide}"))
    (width, _, spread, unseen, _), said = measured(folder, broken, 400)
    assert width > 400 and spread and unseen
    assert "Content Security Policy" in said
