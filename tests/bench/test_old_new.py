"""The race of two checkouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import kernelprune as kp
from bench.old_new import ROOT, Worker, compare
from kernelprune.errors import Error


class Answers:
    """A worker that takes the times it is given, one a turn."""

    def __init__(self, *times: float) -> None:
        self.times = list(times)

    def ask(self, **told: object) -> float:
        return 0.0 if "path" in told else self.times.pop(0)


def test_ratio_is_of_rounds() -> None:
    """If this fails, a slow spell of the machine is taken for a change of the code."""
    old, new = Answers(1.0, 8.0, 1.0), Answers(0.5, 4.0, 1.0)
    row = compare(old, new, Path("model"), 1, 1, 0.1, 3)
    assert row == {"old_ms": 1e3, "new_ms": 500.0, "ratio": 2.0, "ratios": [2.0, 2.0, 1.0]}


def test_worker(tmp_path: Path) -> None:
    """If this fails, an engine is not timed, or one that dies leaves the race waiting."""
    kp.export(nn.ReLU(), torch.zeros(1, 3, 4, 4), tmp_path / "model.safetensors")
    with Worker(ROOT) as worker:
        told = {"path": str(tmp_path / "model.safetensors"), "batch": 2, "threads": 1}
        assert worker.ask(**told, seconds=0.0) > 0.0
        assert worker.ask(seconds=0.0) > 0.0
        with pytest.raises(Error, match="ended"):
            worker.ask(**(told | {"path": "missing"}), seconds=0.0)
    with pytest.raises(Error, match="make build"):
        Worker(tmp_path)
