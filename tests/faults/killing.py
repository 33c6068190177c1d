"""Runs something in a forked process and kills that at a chosen point."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_EVENTS = (
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.chmod",
    "os.truncate",
    "fcntl.flock",
)


@dataclass(frozen=True)
class Kill:
    """SIGKILL so many seconds after the start, or just before the n-th step of writing: opening a
    file to write, flushing, renaming, removing, making a folder."""

    after_seconds: float | None = None
    before_write: int | None = None


def _on_writes(call: Callable[[], None]) -> None:
    """Has ``call`` called before every step of writing, for the rest of this process."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        to_write = event == "open" and arguments[2] and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in _EVENTS or to_write:
            call()

    genuine = os.fsync

    def fsync(descriptor: int) -> None:
        call()
        genuine(descriptor)

    os.fsync = fsync
    sys.addaudithook(hook)


def _fork(body: Callable[[], None]) -> int:
    """The number of a process that runs ``body``; its exit status is 1 if that raises."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        body()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def count_writes(run: Callable[[], None]) -> int:
    """How many steps of writing a whole run takes, in a process of its own."""
    receiver, sender = os.pipe()

    def body() -> None:
        count = 0

        def add() -> None:
            nonlocal count
            count += 1

        _on_writes(add)
        run()
        os.write(sender, str(count).encode())

    child = _fork(body)
    os.close(sender)
    status = os.waitpid(child, 0)[1]
    count = int(os.read(receiver, 20) or 0)
    os.close(receiver)
    assert status == 0 and count > 0, "the run fails without any fault"
    return count


def run_killed(run: Callable[[], None], kill: Kill) -> bool:
    """Whether the kill came before the end of the run."""

    def body() -> None:
        left = kill.before_write

        def step() -> None:
            nonlocal left
            assert left is not None
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        if left is not None:
            _on_writes(step)
        run()

    child = _fork(body)
    if kill.after_seconds is not None:
        time.sleep(kill.after_seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"the run ended with status {status}, and not by the kill"
    return killed
