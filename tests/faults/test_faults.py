"""A cheap part of ``make faults``, in a process of its own: it forks, and torch must not have
threads then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def test_killed_at_random_points() -> None:
    """If this fails, a process that is killed costs the user a file, or resuming gives another
    network."""
    pytest.importorskip("sklearn")
    command = [sys.executable, str(FOLDER), "--points", "1", "--no-disk"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "export", "train", "prune", "tune",
    ]  # fmt: skip
