"""The Python examples, and the tutorial from its first command to its last line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "python"


def output_of(folder: Path, *command: str | Path) -> str:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # The commands of the tutorial are those of this Python.
    place = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(paths), "PATH": place, "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the example of an own loop says, and the file that it writes."""
    folder = tmp_path_factory.mktemp("own")
    said = output_of(folder, sys.executable, EXAMPLES / "own_loop.py", "own.safetensors")
    return said, folder / "own.safetensors"


def test_own_loop(trained: tuple[str, Path]) -> None:
    """If this fails, who copies the example into a loop of their own loses the accuracy, or exports
    something else than was trained."""
    accuracies = {
        name: float(value)
        for name, value in re.findall(r"^([a-z -]+): +(\d\.\d+)$", trained[0], re.M)
    }
    assert set(accuracies) == {"trained", "pruned", "fine-tuned", "in the engine"}
    assert accuracies["pruned"] < accuracies["fine-tuned"]
    assert accuracies["fine-tuned"] > 0.9
    assert accuracies["in the engine"] == pytest.approx(accuracies["fine-tuned"], abs=0.002)


def test_run(trained: tuple[str, Path]) -> None:
    """If this fails, the smallest program that runs a model file does not, or it needs torch."""
    script = "import sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; import runpy; "
    script += "runpy.run_path(sys.argv[0], run_name='__main__')"
    said = output_of(
        trained[1].parent, sys.executable, "-c", script, EXAMPLES / "run.py", trained[1]
    )
    assert said.startswith("8 images of (1, 16, 16) -> ") and said.count("is largest") == 3


# Each of its commands is tested by itself in tests/cli; six processes load torch here.
@pytest.mark.extensive
def test_tutorial(tmp_path: Path) -> None:
    """If this fails, the first five minutes of a new user end in an error."""
    text = (ROOT / "docs" / "TUTORIAL.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    commands = "".join(code for language, code in blocks if language == "bash")
    assert commands.count("\n") == 5
    # In this Python, whatever environment the shell has.
    commands = commands.replace("kernelprune ", f"'{sys.executable}' -m kernelprune.cli ")
    said = output_of(tmp_path, "bash", "-e", "-c", commands)
    accuracies = re.findall(r"validation accuracy (?:.* -> )?([\d.]+)%", said)
    assert len(accuracies) == 2 and min(map(float, accuracies)) > 90
    (program,) = (code for language, code in blocks if language == "python")
    assert "(1, 8, 8)" in output_of(tmp_path, sys.executable, "-c", program)
