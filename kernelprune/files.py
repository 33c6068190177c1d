"""Files are read whole, and written whole or not at all.

A file is written beside its target under a temporary name, flushed to disk, and renamed: at
whatever point a process is killed, the path holds the old file or the whole new one. What a killed
process leaves behind is removed by the next one that writes into the same folder.

Writers hold a lock on their temporary file, which the system gives back when they end, however they
end; so what is not locked belongs to nobody. (A number of a process would not tell: processes of
another container or machine have their own.)
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from kernelprune.errors import Error

# The name is short whatever the target's is, so that a target of the longest name can be written.
_PART = re.compile(r"\.kernelprune-\d+-[0-9a-f]{8}\.part")

# What some file systems answer to the flushing of a folder, which they then do not need.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF)


# Of the files that are taken for images where a folder is given.
IMAGES = (".jpeg", ".jpg", ".png", ".bmp", ".webp", ".ppm")


# ---------------------------------------------------------------- reading


def images_in(folder: Path) -> list[Path]:
    """All images in a folder and those below it, in alphabetical order. Raises Error when there is
    none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)
    if not found:
        raise Error(f"{folder}: no images ({', '.join(IMAGES)})")
    return found


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A regular file, open for reading. What waits (a pipe) or never ends (a device) is refused.

    Raises:
        Error: There is no such file, it is not a regular one, or the system cannot read it; also
            where the block raises an OSError.
    """
    name = name_of(path)
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Error(f"{name}: not a regular file")
        with open(descriptor, "rb") as file:
            yield file
    except FileNotFoundError:
        raise Error(f"{name}: no such file") from None
    except OSError as error:
        raise Error(f"{name}: cannot be read: {_reason(error)}") from error


def read_bytes(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """All of a regular file.

    Raises:
        Error: As :func:`opened`; it has more than ``limit`` bytes.
    """
    with opened(path) as file:
        if limit is not None and os.fstat(file.fileno()).st_size > limit:
            raise Error(f"{name_of(path)}: larger than {limit:,} bytes, the most that is read here")
        return file.read()


# ---------------------------------------------------------------- writing


@contextmanager
def replacing(path: str | os.PathLike[str], what: str = "the file") -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` at the end of the block, if that raises nothing.

    A symbolic link stays, and what it points to is written. The new file has the permissions of the
    old one; if there was none, those that the umask leaves. ``what`` it is, for messages.

    Raises:
        Error: ``path`` is a folder, a device or another thing that is not a regular file; the
            system cannot write it (no such folder, no permission, disk full), also where the block
            raises an OSError.
    """
    name = name_of(path)
    try:
        old = _regular(name)
        target = os.path.realpath(name)
        folder = os.path.dirname(target)
        _remove_parts(folder)
        descriptor, temporary = _make_part(folder, 0o666 if old is None else 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if old is not None:
                    _take_over(file.fileno(), old)
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(folder)
    except OSError as error:
        raise Error(f"{name}: cannot write {what}: {_reason(error)}") from error


def write_bytes(path: str | os.PathLike[str], content: bytes, what: str = "the file") -> None:
    """Replaces a file, see :func:`replacing`."""
    with replacing(path, what) as file:
        file.write(content)


def write_text(path: str | os.PathLike[str], text: str, what: str = "the file") -> None:
    """Replaces a file by ``text`` in UTF-8, see :func:`replacing`."""
    write_bytes(path, text.encode("utf-8"), what)


@contextmanager
def new_folder(path: str | os.PathLike[str], what: str = "the folder") -> Iterator[Path]:
    """A folder to fill with files, which appears as ``path`` at the end of the block, whole and on
    disk, if that raises nothing. Folders above it are made.

    Raises:
        Error: ``path`` exists and is not an empty folder; the system cannot write it, also where
            the block raises an OSError.
    """
    name = name_of(path)
    try:
        target = os.path.realpath(name)
        with suppress(FileNotFoundError):
            os.lstat(target)
            if os.listdir(target):
                raise Error(f"{name}: is there already, and not empty")
        above = os.path.dirname(target)
        os.makedirs(above, exist_ok=True)
        _remove_parts(above)
        lock, partial = _make_part_folder(above)
        try:
            yield Path(partial)
            for entry in os.scandir(partial):
                _sync(entry.path)
            os.fsync(lock)
            os.replace(partial, target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            os.close(lock)
        sync_folder(above)
    except OSError as error:
        raise Error(f"{name}: cannot write {what}: {_reason(error)}") from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Makes a folder, so that hours of work do not end with one that cannot be written.

    Raises:
        Error: It cannot be made, or nothing can be written into it.
    """
    name = name_of(path)
    try:
        os.makedirs(name, exist_ok=True)
        _remove_parts(name)
        descriptor, temporary = _make_part(name, 0o600)
        os.close(descriptor)
        os.unlink(temporary)
    except OSError as error:
        raise Error(f"{name}: nothing can be written there: {_reason(error)}") from error


def is_unused(folder: str | os.PathLike[str]) -> bool:
    """Whether nothing lies in ``folder``, but for what a killed process left behind.

    Raises:
        Error: It is a folder and cannot be read.
    """
    name = name_of(folder)
    try:
        return all(_PART.fullmatch(entry.name) for entry in os.scandir(name))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        raise Error(f"{name}: cannot be read: {_reason(error)}") from error


def name_of(path: str | os.PathLike[str]) -> str:
    """``path`` as text.

    Raises:
        Error: It is no path, or no file can have such a name.
    """
    try:
        name = os.fsdecode(path)
        os.fsencode(name)
    except (TypeError, UnicodeError):
        raise Error(f"{path!r} is not the path of a file") from None
    if "\0" in name or not name:
        raise Error(f"{name!r} is not the path of a file")
    return name


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Has the system write a folder's entries to disk: else a power cut may undo a renaming."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def _sync(path: str | os.PathLike[str]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _regular(name: str) -> os.stat_result | None:
    """What stands at ``name``; None if nothing does. Raises Error if it is not a file."""
    if name.endswith(os.sep):
        raise Error(f"{name}: is the path of a folder, not of a file")
    try:
        old = os.stat(name)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(old.st_mode):
        raise Error(f"{name}: is a folder, not a file")
    if not stat.S_ISREG(old.st_mode):
        raise Error(f"{name}: not a regular file, and is left as it is")
    return old


def _take_over(descriptor: int, old: os.stat_result) -> None:
    """Gives a new file the owner, where we may, and the permissions of the old one."""
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(OSError):
            os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _part_name(folder: str) -> str:
    return os.path.join(folder, f".kernelprune-{os.getpid()}-{secrets.token_hex(4)}.part")


def _make_part(folder: str, mode: int) -> tuple[int, str]:
    """A new locked file in ``folder``: its descriptor and its path."""
    while True:
        temporary = _part_name(folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(temporary, flags, mode)
        except FileExistsError:
            continue
        if _lock(descriptor, temporary):
            return descriptor, temporary


def _make_part_folder(above: str) -> tuple[int, str]:
    """The same for a folder in ``above``."""
    while True:
        temporary = _part_name(above)
        os.mkdir(temporary)
        try:
            descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if _lock(descriptor, temporary):
            return descriptor, temporary


def _lock(descriptor: int, temporary: str) -> bool:
    """Marks a temporary file as in use; False if somebody took it for a stray one before that (then
    it is closed). Where locks do not exist nobody removes files either."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    there = os.path.lexists(temporary)
    if not there:
        os.close(descriptor)
    return there


def _remove_parts(folder: str) -> None:
    """Removes temporary files in ``folder`` whose writers are gone."""
    try:
        parts = [entry for entry in os.scandir(folder) if _PART.fullmatch(entry.name)]
    except OSError:  # a folder may be closed to readers and open to writers
        return
    for entry in parts:
        with suppress(OSError):
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)
            finally:
                os.close(descriptor)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
