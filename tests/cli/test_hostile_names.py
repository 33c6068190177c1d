"""Names and metadata of a file that look like markup, or are codes for a terminal."""

from __future__ import annotations

from pathlib import Path

import model_bytes as mb
import numpy as np
import pytest
from rich.console import Console

from kernelprune import _core
from kernelprune.benchmarking import BenchOptions, benchmark
from kernelprune.cli import main
from kernelprune.cli.console import PlainConsole
from kernelprune.errors import FormatError
from kernelprune.format import Graph, Node, Value, write
from kernelprune.format.reader import read_bytes
from kernelprune.report import add_row, benchmark_table, layer_table, model_table
from kernelprune.runtime import Engine
from kernelprune.train.progress import PhaseProgress, TrainProgress

NAMES = ["[/x]", "[bold]", ":smile:", "a\u202eb", "\u200bhidden", "\x9b31mred", "[link=http://x]a"]
SHOWN = [
    "[/x]",
    "[bold]",
    ":smile:",
    r"a\u202eb",
    r"\u200bhidden",
    r"\x9b31mred",
    "[link=http://x]a",
]
METADATA = {
    "source": "see [/docs]",
    "e": "A\x1b]0;title\x07\x1b[2J\x1b[31mB",
    "[/k\x1b]": "[red]v\n",
}


def graph() -> Graph:
    """One layer of each name."""
    random = np.random.default_rng(0)
    nodes = [
        Node("linear", name, [NAMES[i - 1] + "y" if i else "x"], name + "y", (3,),
             {"activation": "none"}, random.standard_normal((3, 3)))
        for i, name in enumerate(NAMES)
    ]  # fmt: skip
    return Graph([Value("x", (3,))], [NAMES[-1] + "y"], nodes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "[red]m\x1b[2J.safetensors"
    write(graph(), path, METADATA)
    return path


def check(text: str, names: list[str] = SHOWN) -> None:
    assert all(name in text for name in names), text
    assert "\x1b" not in text and "\x9b" not in text and "\u202e" not in text


def test_commands(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, a model file ends a command in a traceback, or writes into the terminal."""
    for command, more, names in (
        (
            "inspect",
            [],
            [*SHOWN, "see [/docs]", r"A\x1b]0;title\x07\x1b[2J", r"[/k\x1b]", "[red]v"],
        ),
        ("tune", ["--seconds", "0.001"], SHOWN[:3]),
        ("bench", ["--against", "none", "-n", "1", "--no-start-up", "--per-layer"], SHOWN),
    ):
        with pytest.raises(SystemExit) as caught:
            main([command, str(file), *more])
        found = capsys.readouterr()
        assert not caught.value.code, found.err
        check(found.out.replace("\n", " "), names)
        check(found.err, [])


@pytest.mark.parametrize("width", [200, 80])
def test_tables_on_any_console(file: Path, width: int) -> None:
    """If this fails, tables are safe on our console alone, or lose names where it is narrow."""
    engine = Engine(file)
    options = BenchOptions(batch=(1,), against=(), iterations=1, start_up=False)
    result = benchmark(file, options=options)
    console = Console(width=width)
    with console.capture() as capture:
        console.print(layer_table(engine.layers(1), title="[/title]\x1b"))
        console.print(benchmark_table(result))
        console.print(model_table(graph(), METADATA, 1))
    shown = capture.get()
    assert "…" not in shown
    if width == 200:
        check(shown, [*SHOWN, r"[/title]\x1b"])
    check(str(result), [r"[red]m\x1b[2J"])
    check("".join(map(str, engine.layers(1))))


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, a layer's name ends a training in a traceback."""
    for terminal in (True, False):
        console = Console(force_terminal=terminal, width=200)
        with PhaseProgress(console) as phases:
            for name in NAMES:
                phases(f"choosing {name}", 1, 1, 0.5)
        with TrainProgress("[/train]", 2, 0, console) as bar:
            bar.step(0.5, 0.5, 1)
            bar.epoch(1, 0.5)
    out = capsys.readouterr().out
    assert "choosing [/x]" in out and r"choosing \x9b31mred" in out and "[/train]" in out


def test_console_prints_what_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, a path in a message is taken for markup."""
    PlainConsole(width=100).print("[/x] \x1b[2J\nsecond", soft_wrap=True)
    assert capsys.readouterr().out == "[/x] \\x1b[2J\nsecond\n"


def test_own_styles_stay() -> None:
    """If this fails, the demo's result is no longer marked, or a cell cannot be a Text."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    add_row(table, 1, Text("bold", "bold"), None)
    console = Console(force_terminal=True, width=80)
    with console.capture() as capture:
        console.print(table)
    assert "\x1b[1mbold" in capture.get() and "None" in capture.get()


@pytest.mark.parametrize("field", ["op", "activation", "name", "output", "extra"])
def test_errors_of_both_readers(field: str) -> None:
    """If this fails, a refused file writes into the terminal with the message of its refusal."""
    evil = "a\x1b[2J\x1b]0;owned\x07\u202e\u200bb"
    model = mb.every_op()
    node = model.node("stem")
    node.update({evil: [1]} if field == "extra" else {field: evil})
    content = model.to_bytes()
    for read in (lambda data: read_bytes(data, "m"), _core.check_bytes):
        with pytest.raises(FormatError) as caught:
            read(content)
        message = str(caught.value)
        assert message.isprintable()
        assert r"\x1b" in message or "activation is not one of" in message
        assert "\u202e" not in message and "\u200b" not in message
