"""Where data sets are looked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def cache_folder() -> Path:
    """Where downloads go: ``$XDG_CACHE_HOME/kernelprune`` or ``~/.cache/kernelprune``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kernelprune"


def search_path(
    name: str, path: str | os.PathLike[str] | None = None, more: Sequence[Path] = ()
) -> list[Path]:
    """Folders that are searched for the data set ``name``, in this order; ``path`` alone if it is
    given: ``$KERNELPRUNE_DATA``, ``more``, the cache, each with and without a folder ``name``."""
    if path is not None:
        return [Path(path)]
    folders = []
    if os.environ.get("KERNELPRUNE_DATA"):
        folders.append(Path(os.environ["KERNELPRUNE_DATA"]))
    folders += [*more, cache_folder()]
    return [sub for folder in folders for sub in (folder, folder / name)]
