"""Trials in processes of their own, with limits, several side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
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


# A trial limits its own processor time; on a busy machine it may take longer by this factor.
_PATIENCE = 6.0


def attempt(command: Sequence[str], seconds: float) -> Row:
    """Runs a trial and returns its row, which gets ``seconds``.

    ``command`` gets the name of the file for the row as its last argument. A trial that takes more
    than ``seconds`` of processor time is stopped by the signal XCPU, one that waits by a clock; the
    status is then "time". One that dies without a row has the status "crash".
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "row.json"
        with (Path(folder) / "output").open("w+b") as output:
            process = subprocess.Popen(
                [*command, str(target)],
                env=os.environ | _ENVIRONMENT | {"YOLO_CONFIG_DIR": folder, "TMPDIR": folder},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                code: int | None = process.wait(timeout=seconds * _PATIENCE)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                process.kill()
                process.wait()
            output.seek(0)
            said = output.read().decode(errors="replace")
        if code in (None, -signal.SIGXCPU):
            row: Row = {"status": "time", "detail": f"not done in {seconds:g} s"}
        elif target.exists():
            row = dict(read_json(read_bytes(target)))
        else:
            row = {"status": "crash", "detail": _death(code, said)}
    return row | {"seconds": round(time.monotonic() - started, 1)}


def _death(code: int, said: str) -> str:
    lines = said.strip().splitlines()
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return f"{how}: {lines[-1][:200]}" if lines else how


def attempt_all(
    commands: Iterable[tuple[Any, Sequence[str]]],
    jobs: int,
    seconds: float,
    done: Callable[[Any, Row], object],
) -> None:
    """Runs ``(key, command)`` in order, ``jobs`` at a time; ``done(key, row)`` hears of each, in
    the caller's thread."""
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(attempt, command, seconds): key for key, command in commands}
        try:
            for future in as_completed(running):
                done(running[future], future.result())
        except BaseException:
            # Those that run get the same signal from the terminal; the others are not started.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
