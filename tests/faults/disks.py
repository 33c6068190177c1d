"""A disk that is full, or that nobody may write: a small tmpfs, which needs root."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from operations import Operation

from kernelprune.errors import Error

_KIB = 1024


@contextmanager
def small_disk(place: Path, kib: int) -> Iterator[Path]:
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k,nr_inodes=500", "tmpfs", str(place)]
    subprocess.run(mount, check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(file: Path, leave: int) -> None:
    """Takes all space but ``leave`` bytes, in whole blocks."""
    with file.open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4 * _KIB)):
                continue
        except OSError:
            pass
        stream.truncate(max(stream.tell() - leave, 0) // (4 * _KIB) * (4 * _KIB))


def refused(operation: Operation) -> bool:
    """Whether the run ended in an Error; anything else that is raised goes on its way."""
    try:
        operation.run()
    except Error:
        return True
    return False


def try_disks(place: Path, operations: Sequence[Operation]) -> None:
    """Every operation with less and less space left, then on a disk that is read-only."""
    for operation in operations:
        with small_disk(place, 2000) as disk:
            operation.target = disk / "place"
            errors = 0
            spaces = range(0, 160 * _KIB, 8 * _KIB)
            for leave in spaces:
                (disk / "filled").unlink(missing_ok=True)
                operation.prepare()
                fill(disk / "filled", leave)
                errors += refused(operation)
                operation.check_killed()
                (disk / "filled").unlink()
                operation.run()
                operation.check_done()
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            # A training that is done has nothing to write, and says so by its result.
            read_only = refused(operation)
            operation.check_done()
        print(
            f"{operation.name}: {len(spaces)} runs with 0 to 156 KiB left, {errors} Errors and "
            f"nothing else; read-only: {'an Error' if read_only else 'nothing to write'}; the old "
            "one was whole after each",
            flush=True,
        )
