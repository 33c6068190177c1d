"""Trials in processes of their own, with limits, several side by side."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from kernelprune.files import read_bytes
from kernelprune.text import read_json

# One thread each; nothing from the network, nothing in the home folder.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
}

Row = dict[str, Any]


# What a trial calls, with the words of its command line; the last one names the file for the row.
Program = Callable[[Sequence[str]], object]

# A trial limits its own processor time; on a busy machine it may take longer by this factor.
_PATIENCE = 6.0
# What takes longer than many of the networks: it is imported once, and every trial is a fork.
_PRELOADED = "bench.coverage.packages"


@cache
def _server() -> ForkServerContext:
    """Starts the process whose children the trials are; call it before there are threads."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([_PRELOADED])
    own = dict(os.environ)
    os.environ.update(_ENVIRONMENT)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(own)
    return found


def _child(program: Program, words: Sequence[str], folder: str) -> None:
    """Runs in the process of a trial: all that it says and leaves goes into ``folder``."""
    os.environ |= {"YOLO_CONFIG_DIR": folder, "TMPDIR": folder}
    tempfile.tempdir = None
    sys.stdout.flush(), sys.stderr.flush()
    output = os.open(Path(folder) / "output", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(output, 1), os.dup2(output, 2)
    program(words)


def attempt(program: Program, words: Sequence[str], seconds: float) -> Row:
    """Runs a trial and returns its row, which gets ``seconds``.

    ``words`` get the name of the file for the row at their end. A trial that takes more than
    ``seconds`` of processor time is stopped by the signal XCPU, one that waits by a clock; the
    status is then "time". One that dies without a row has the status "crash".
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "row.json"
        process = _server().Process(target=_child, args=(program, [*words, str(target)], folder))
        process.start()
        try:
            process.join(seconds * _PATIENCE)
            code = process.exitcode
        finally:
            process.kill()
            process.join()
        if code in (None, -signal.SIGXCPU):
            row: Row = {"status": "time", "detail": f"not done in {seconds:g} s"}
        elif target.exists():
            row = dict(read_json(read_bytes(target)))
        else:
            output = Path(folder) / "output"
            said = output.read_text(errors="replace") if output.exists() else ""
            row = {"status": "crash", "detail": _death(code, said)}
    return row | {"seconds": round(time.monotonic() - started, 1)}


def _death(code: int, said: str) -> str:
    lines = said.strip().splitlines()
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return f"{how}: {lines[-1][:200]}" if lines else how


def attempt_all(
    program: Program,
    trials: Iterable[tuple[Any, Sequence[str]]],
    jobs: int,
    seconds: float,
    done: Callable[[Any, Row], object],
) -> None:
    """Runs ``(key, words)`` in order, ``jobs`` at a time; ``done(key, row)`` hears of each, in
    the caller's thread."""
    _server()
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(attempt, program, words, seconds): key for key, words in trials}
        try:
            for future in as_completed(running):
                done(running[future], future.result())
        except BaseException:
            # Those that run get the same signal from the terminal; the others are not started.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
