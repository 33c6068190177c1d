"""Load time, first inference and memory of one candidate, in a process that does nothing else.

In the process of the race they would mean little: packages are loaded, thread pools are running and
the heap holds what others have freed.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernelprune.benchmarking.peers import KINDS, Job, random_inputs
from kernelprune.errors import Error

# Of a stuck child; the slowest that is known is torch.compile of a large network.
_TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True)
class StartUp:
    """What happens before a program has its first answer.

    Attributes:
        load: Milliseconds from the model file to an engine that is ready; packages are loaded.
        first: Milliseconds of the first inference.
        memory: Bytes that the process grew by at most, from before the load to after the third
            inference; None where the system does not tell.
    """

    load: float
    first: float
    memory: int | None


def measure_start_up(
    candidate: Job | tuple[Path, dict[str, Any]],
    shapes: Sequence[Sequence[int]],
    batch: int,
    seed: int = 0,
) -> StartUp:
    """Starts a process for a peer, or for the engine (file and options), and asks it.

    Raises:
        Error: The process failed.
    """
    order: dict[str, Any] = {"shapes": [list(s) for s in shapes], "batch": batch, "seed": seed}
    if isinstance(candidate, Job):
        order["job"] = dataclasses.asdict(candidate)
        name = candidate.name
    else:
        order["file"], order["options"] = str(candidate[0]), candidate[1]
        name = "kernelprune"
    code = "from kernelprune.benchmarking.start_up import main; main()"
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    except subprocess.TimeoutExpired as error:
        raise Error(f"start-up of {name} took more than {_TIMEOUT_SECONDS:.0f} s") from error
    if done.returncode != 0 or not done.stdout.strip():
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise Error(f"start-up of {name} could not be measured: {reason}")
    return StartUp(**json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    """The child: an order as JSON from standard input, the answer as the last line of output."""
    order = json.load(sys.stdin)
    inputs = random_inputs(order["shapes"], order["batch"], order["seed"])
    if "job" in order:
        entry = order["job"]
        job = Job(**{**entry, "inputs": tuple(entry["inputs"]), "outputs": tuple(entry["outputs"])})
        kind = KINDS[job.name]
        importlib.import_module(kind.package)

        def load() -> Any:
            return kind.load(job, inputs).call
    else:
        from kernelprune.runtime import Engine

        def load() -> Any:
            engine = Engine(order["file"], **order["options"])
            return lambda: engine.run(*inputs)

    _forget_peak()
    before = _memory("VmRSS")
    started = time.perf_counter()
    call = load()
    loaded = time.perf_counter()
    call()
    answered = time.perf_counter()
    for _ in range(2):
        call()
    peak = _memory("VmHWM")
    answer = {
        "load": (loaded - started) * 1e3,
        "first": (answered - loaded) * 1e3,
        "memory": None if before is None or peak is None else max(peak - before, 0),
    }
    print(f"\n{json.dumps(answer)}", flush=True)


def _forget_peak() -> None:
    """Importing packages may have taken more memory for a moment than what comes now."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        pass


def _memory(field: str) -> int | None:
    """A size that Linux tells about this process, in bytes."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None
