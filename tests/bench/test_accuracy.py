"""The rows and tables of accuracies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.accuracy.rows import ROWS, shortened
from bench.accuracy.run import run_row
from bench.accuracy.tables import tables
from kernelprune.errors import Error


def measured(tests: list[float], dense: float = 0.9, epochs: float = 8.0) -> dict[str, Any]:
    """What a table needs of a row's json."""
    mean = sum(tests) / len(tests)
    return {
        "train": {"epochs": epochs},
        "dense": {"mean": dense, "deviation": 0.001},
        "pruned": {"mean": mean, "deviation": 0.005},
        "from_scratch": {"mean": 0.5, "deviation": None},
        "kept": [{"macs": [1, 4], "parameters": [1, 8], "connections": [1, 10]}],
        "chosen": 1,
        "candidates": [{"minutes": [9.0]}, {"minutes": [1.0, 2.0, 6.0]}],
    }


def test_tables(tmp_path: Path) -> None:
    """If this fails, a table shows a figure in the wrong cell, marks the wrong one as the best, or
    leaves out that a cell was not measured."""
    rows = {
        "vgg16-synaptic-0.1": measured([0.88, 0.9], dense=0.8, epochs=2.0),
        "vgg16-l1-0.1": measured([0.85]),
        "vgg16-l1-0.04": measured([0.7]),
        "resnet20-channels-dcp-0.5": measured([0.6]),
        "vgg16-channels-adaptive-0.01": measured([0.4]),
        "vgg16-gap-nothing": {
            **measured([0.8]),
            "fit": {
                "trained with": {"mean": 0.95, "deviation": 0.002},
                "others": {"mean": 0.81, "deviation": 0.003},
            },
        },
        "vgg16-no-such-row": measured([1.0]),
    }
    for name, row in rows.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(row))
    lines = tables(tmp_path).splitlines()
    assert "| Synaptic Strength | - | **89.00 ± 0.50** (25.0%) | - | - |" in lines
    assert "| L1 norm | - | 85.00 ± 0.50 (25.0%) | - | **70.00 ± 0.50** (25.0%) |" in lines
    # the network that was trained longest
    assert "| vgg16, unpruned 90.00 ± 0.10 | 0.2 | 0.1 | 0.05 | 0.04 |" in lines
    assert "| DCP | - | **60.00 ± 0.50** (25.0%) |" in lines
    assert "| the network that DCP leaves, from scratch | - | 50.00 |" in lines
    assert "| its parameters | - | 12.5% |" in lines
    assert "| 0.01 | 40.00 ± 0.50 | 12.5% | 25.0% | 2.0 |" in lines  # median of the chosen
    fit = "| vgg16-gap-nothing | 95.00 ± 0.20 | 81.00 ± 0.30 | 80.00 ± 0.50 | 10.0% |"
    assert fit in lines
    assert not any("100.00" in line or "DKP" in line for line in lines)


def test_table_of_settings(tmp_path: Path) -> None:
    """If this fails, the table of what was tried does not say in what the candidates differ."""
    tried = [
        {"prune": {"method": "l1", "scope": scope, "seed": 0}, "validation": [accuracy, 0.1]}
        for scope, accuracy in (("layer", 0.75), ("global", 0.5))
    ]
    found = json.dumps({"candidates": tried, "chosen": 0})
    (tmp_path / "vgg16-settings-criteria-0.04.json").write_text(found)
    lines = tables(tmp_path).splitlines()
    assert lines[0] == "| scope | vgg16-settings-criteria-0.04, first seed, validation |"
    assert lines[2:] == ["| layer | 75.0% |", "| global | 50.0% |"]


def test_tables_of_nothing(tmp_path: Path) -> None:
    assert tables(tmp_path) == ""


def test_row(tmp_path: Path) -> None:
    """If this fails, a row's command ends in a traceback after an hour, or takes another than the
    candidate that validation prefers."""
    name = "vgg16-synaptic-0.1"
    row = shortened(ROWS[name])
    train = replace(row.train, model="vgg_small", model_options={"width": 0.25}, epochs=0.5)
    row = replace(row, train=train, control=True, fit=True)
    found = run_row(name, row, [0, 1], tmp_path / "work", tmp_path, None)
    written = json.loads((tmp_path / f"{name}.json").read_text("utf-8"))
    assert written == found
    candidates = found["candidates"]
    assert [len(each["validation"]) for each in candidates].count(2) == 1
    assert len(candidates[found["chosen"]]["validation"]) == 2
    firsts = [each["validation"][0] for each in candidates]
    assert firsts[found["chosen"]] == max(firsts)
    assert len(found["pruned"]["test"]) == len(found["kept"]) == 2
    assert len(found["from_scratch"]["test"]) == 2
    for images in ("trained with", "others"):
        assert all(0 < value < 1 for value in found["fit"][images]["accuracy"])


def test_fit_needs_other_images() -> None:
    """If this fails, a row finds out after an hour that there are no images to compare with."""
    row = ROWS["vgg16-gap-nothing"]
    assert row.fit
    with pytest.raises(Error, match="limit"):
        replace(row, train=replace(row.train, limit=None))
