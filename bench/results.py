"""The json files: where they lie and how they are read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kernelprune.errors import Error
from kernelprune.files import read_bytes, write_text
from kernelprune.text import read_json

RESULTS = Path(__file__).parent / "results"


def peers_file(network: str, threads: int, precision: str = "float32") -> str:
    """Runs on more than one thread, and those in int8, have files of their own."""
    kind = "" if precision == "float32" else f"{precision}-"
    more = "" if threads == 1 else f"-{threads}threads"
    return f"peers-{kind}{network}{more}.json"


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


def load_peers(folder: Path, threads: int = 1, precision: str = "float32") -> list[dict[str, Any]]:
    """All ``peers-*.json`` of this number of threads and precision, in alphabetical order."""
    found = [load(path) for path in sorted(folder.glob("peers-*.json"))]
    wanted = threads, precision
    # Results of before there was int8 do not tell their precision.
    return [r for r in found if (r["threads"], r.get("precision", "float32")) == wanted]
