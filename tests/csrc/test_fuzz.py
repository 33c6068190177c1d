"""The fuzz driver (csrc/fuzz, C++) on damaged files by the thousand. `make fuzz` runs far more of
them, with and without sanitizers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from build_folder import build_target, cache_entry
from csrc.fuzz.seeds import write_seeds

from kernelprune.errors import FormatError
from kernelprune.format.reader import read

CASES = 10_000
# For the Python reader, which takes milliseconds for each.
WRITTEN = 2_000


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The program with the valid files that it starts from."""
    seeds = tmp_path_factory.mktemp("seeds")
    write_seeds(seeds)
    slowness = "20" if cache_entry("KERNELPRUNE_SANITIZE") else "1"
    jobs = str(min(os.cpu_count() or 1, 4))
    program = str(build_target("kernelprune_fuzz"))
    return [program, "--seeds", str(seeds), "--slowness", slowness, "--jobs", jobs]


def run(command: list[str]) -> str:
    """What the driver says; fails if any case does."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


def test_damaged_files(driver: list[str], tmp_path: Path) -> None:
    """If this fails, there is a file that crashes or hangs the engine, that is refused with another
    error, that costs far more memory or time than its bytes are worth, or whose results differ from
    the reference. The first lines say which case it is; the files are in the test's folder."""
    said = run([*driver, "--seed", "1", "--count", str(CASES), "--save", str(tmp_path)])
    counts = {
        words[1]: int(words[0])
        for words in (part.split() for part in said.splitlines()[-1].split(", ")[1:])
    }
    assert sum(counts.values()) == CASES
    # The driver proves little if nearly everything is refused, or nothing.
    assert counts["compared"] > 0.2 * CASES
    assert counts["refused"] > 0.2 * CASES


def test_a_wrong_result_is_noticed(driver: list[str], tmp_path: Path) -> None:
    """If this fails, the driver's comparison lets wrong results through: here every result is
    wrong, since the weights are changed behind the reference's back."""
    told = subprocess.run(
        [*driver, "--count", "200", "--spoil", "1"], capture_output=True, text=True
    )
    assert told.returncode == 1
    assert "differs from the reference" in told.stdout


def test_both_readers_agree(driver: list[str], tmp_path: Path) -> None:
    """If this fails, the engine and the Python reader disagree about whether a file is valid, or
    the Python reader raises something else than FormatError."""
    run([*driver, "--seed", "2", "--count", str(WRITTEN), "--write", str(tmp_path)])
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == WRITTEN
    disagree = []
    for path in paths:
        try:
            read(path)
            accepts = True
        except FormatError:
            accepts = False
        if accepts != path.name.startswith("accepted"):
            disagree.append(path.name)
    assert disagree == []
