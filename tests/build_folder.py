"""The folder that `make build` keeps its object files in, for tests of what is built and how.

python tests/build_folder.py TARGET   # builds a program there and prints where it is
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def build_folder() -> Path:
    """The folder; `KERNELPRUNE_BUILD_DIR` names another one, as it does for setup.py."""
    default = ROOT / "build" / f"cmake-{sysconfig.get_config_var('SOABI')}"
    folder = Path(os.environ.get("KERNELPRUNE_BUILD_DIR", default)).resolve()
    assert folder.is_dir(), f"{folder} is missing: run `make build` first"
    return folder


def cache_entry(name: str) -> str:
    """What the build was configured with."""
    cache = (build_folder() / "CMakeCache.txt").read_text()
    found = re.search(rf"^{re.escape(name)}:\w+=(.*)$", cache, re.MULTILINE)
    assert found, f"{name} is not in the cache of {build_folder()}"
    return found[1]


def build_target(target: str) -> Path:
    """Builds a program that is no part of the package, with the objects that are there."""
    # A sanitizer that tests run under is not for the compiler.
    environment = {key: text for key, text in os.environ.items() if key != "LD_PRELOAD"}
    command = [cache_entry("CMAKE_COMMAND"), "--build", str(build_folder()), "--target", target]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return build_folder() / target


if __name__ == "__main__":
    print(build_target(sys.argv[1]))
