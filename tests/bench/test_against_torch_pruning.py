"""The comparison with torch-pruning: its rows, and what it says where that is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from bench.accuracy import against_torch_pruning as script
from bench.results import load
from kernelprune import models


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    network = script.Network("resnet20", {}, {"width": 0.25})
    monkeypatch.setitem(script.NETWORKS, network.name, network)
    monkeypatch.setattr(script, "Console", lambda: Console(quiet=True))
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "rows.json")]
    sizes = ["--epochs", "0.1", "--finetune-epochs", "0.1", "--images", "400", "--test", "64"]
    chosen = ["--networks", "resnet20", "--macs", "0.4", "--dataset", "digits", "--quick"]
    return ["script", *chosen, *places, *sizes]


def test_rows(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """If this fails, rows are not of the same multiply-adds, a side that fails ends the run, or an
    interrupted run measures all rows again."""

    def fails(*_: object) -> None:
        raise IndexError("index 96 is out of bounds")

    monkeypatch.setitem(script.METHODS, "torch-pruning", fails)
    monkeypatch.setattr(sys, "argv", [*arguments, "--methods", "coupled", "torch-pruning"])
    script.main()
    coupled, refused = load(tmp_path / "rows.json")["rows"]
    assert 0.3 < coupled["macs_left"] / coupled["macs"] <= 0.4
    assert coupled["macs_left"] == coupled["macs_file"]
    assert {"dense", "pruned", "measured", "accuracy"} <= set(coupled)
    assert refused["refused"] == "IndexError: index 96 is out of bounds"
    assert "refused (IndexError" in capsys.readouterr().out
    monkeypatch.setattr(script, "measure", fails)
    script.main()  # nothing is missing


def test_without_the_package(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, who has no torch-pruning gets a traceback, or a row that says it failed."""
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(SystemExit, match="pip install --no-deps torch-pruning==1.6.1"):
        script.METHODS["torch-pruning"](torch.nn.Linear(2, 2), torch.zeros(1, 2), 0.5)


def test_ends() -> None:
    """If this fails, torch-pruning cuts the classifier's outputs."""
    model = models.create("resnet20", width=0.25, seed=0).eval()
    assert script._ends(model, torch.randn(1, 3, 16, 16)) == {"fc"}
