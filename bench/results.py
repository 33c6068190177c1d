"""The json files: where they lie and how they are read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kernelprune.errors import Error
from kernelprune.files import read_bytes, write_text
from kernelprune.text import read_json

RESULTS = Path(__file__).parent / "results"


def peers_file(network: str, threads: int) -> str:
    """Runs on more than one thread have files of their own."""
    return f"peers-{network}.json" if threads == 1 else f"peers-{network}-{threads}threads.json"


def save(result: dict[str, Any], path: Path) -> None:
    """Writes one result; ``path`` holds the old one or the whole new one. Raises Error."""
    write_text(path, json.dumps(result, indent=1) + "\n", "the result")


def load(path: Path) -> dict[str, Any]:
    """One result.

    Raises:
        Error: No such file, or not a result.
    """
    try:
        found = read_json(read_bytes(path))
    except ValueError as error:
        raise Error(f"{path}: not a json file ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
        raise Error(f"{path}: not a result of a benchmark, it has no rows")
    return found


def load_peers(folder: Path, threads: int = 1) -> list[dict[str, Any]]:
    """All ``peers-*.json`` of this number of threads, in alphabetical order."""
    found = [load(path) for path in sorted(folder.glob("peers-*.json"))]
    return [result for result in found if result["threads"] == threads]
