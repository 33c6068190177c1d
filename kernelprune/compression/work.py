"""The folder in which a run keeps what it has finished, so that a killed one goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kernelprune.errors import Error
from kernelprune.files import check_writable, is_unused, read_bytes, sync_folder, write_text
from kernelprune.prune.checks import short
from kernelprune.text import read_json

_SETTINGS = "settings.json"


class WorkFolder:
    """``settings``: what the run depends on, by the words that a message uses. A part is a JSON
    file, written after the files that it names; so it is whole or not there."""

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any]):
        """Raises Error for a folder that was begun with other settings, or holds something else."""
        self.folder = Path(folder)
        known = _plain(settings)
        if not is_unused(self.folder):
            self._compare(known)
        check_writable(self.folder)
        self._write(_SETTINGS, known)

    def _compare(self, settings: dict[str, Any]) -> None:
        place = self.folder / _SETTINGS
        if not place.exists():
            raise Error(f"{self.folder}: holds other files; give a folder of its own")
        before = _read(place)
        for name in settings.keys() | before.keys():
            old, new = before.get(name), settings.get(name)
            if old != new:
                raise Error(
                    f"{self.folder}: was begun with another {name} ({short(old)}, now "
                    f"{short(new)}); give another folder, or what it was begun with"
                )

    def path(self, name: str) -> Path:
        return self.folder / name

    def part(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``make`` gave in an earlier run, or gives now: JSON. Under ``files`` it may name
        files of the folder, with their digests; where one is damaged, the part is made again."""
        place = self.folder / f"{name}.json"
        if place.exists():
            with suppress(Error):
                found = _read(place)
                files = found.get("files", {})
                if all(digest_of(self.path(file)) == own for file, own in files.items()):
                    return found
        found = _plain(make())
        self._write(f"{name}.json", found)
        return found

    def _write(self, name: str, content: dict[str, Any]) -> None:
        write_text(self.folder / name, json.dumps(content, indent=1) + "\n", "the finished step")
        sync_folder(self.folder)


def clear(folder: str | os.PathLike[str]) -> None:
    """Removes what a run has written, and the folder if nothing else lies in it."""
    place = Path(folder)
    for pattern in ("*.json", "*.safetensors"):
        for file in place.glob(pattern):
            file.unlink()
    with suppress(OSError):
        place.rmdir()


def digest_of(path: Path) -> str:
    """SHA-256 of a file. Raises Error when it cannot be read."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    found: dict[str, Any] = read_json(json.dumps(dict(content)))
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(read_bytes(path))
    except ValueError as error:
        raise Error(f"{path}: not a file of this run ({error})") from error
    if not isinstance(found, dict):
        raise Error(f"{path}: not a file of this run")
    return found
