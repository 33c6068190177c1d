"""The display of long commands."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kernelprune.cli import progress


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """If this fails, a long command looks as if it hung, or fills log files with bars."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=80)
    monkeypatch.setattr(progress, "PlainConsole", lambda stderr: console)
    with progress.show_progress() as show:
        show("batch 1: setting up torch", None)
        show("batch 1: taking turns", 0.5)
    assert ("taking turns" in stream.getvalue()) == terminal
