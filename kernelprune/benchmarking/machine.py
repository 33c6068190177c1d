"""Where and with what a benchmark ran: without it a time says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from kernelprune.runtime import available_isas
from kernelprune.runtime.plan import processor

_PACKAGES = ("kernelprune", "numpy", "torch", "onnx", "onnxruntime", "openvino", "MNN", "nncf")


def package_version(name: str) -> str | None:
    """Installed version of a distribution; None if there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def commit() -> str | None:
    """Commit of the source tree, with ``+`` if files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        found = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return found + ("+" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def describe_machine() -> dict[str, Any]:
    """Processor, cores, instruction sets, load, commit and versions, ready for JSON."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": processor(),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": usable_cores(),
        "isas": available_isas(),
        "load_average": load,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in _PACKAGES},
    }
