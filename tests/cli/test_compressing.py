"""``kernelprune compress``: what it prints, what it writes, how it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compression.networks import IMAGES, clock, small
from PIL import Image

import kernelprune as kp
from kernelprune.cli import main
from kernelprune.compression import compress as module
from kernelprune.format import read
from kernelprune.frontends.torch.export import capture
from kernelprune.graph.quantization import quantizations


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured."""
    monkeypatch.setattr(module, "engine_timer", lambda batch, threads: clock)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    kp.to_onnx(capture(small(), IMAGES[:1]), path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(IMAGES[:60, 0].numpy()):
        pixels = np.clip(image * 60 + 128, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    lines = [f"{number:03}.png,{number % 4}" for number in range(60)]
    (tmp_path / "f.csv").write_text("\n".join(["file,label", *lines]))
    return folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["compress", *(str(argument) for argument in arguments)])
        text = capsys.readouterr()
        return int(caught.value.code or 0), text.out, text.err

    return run


def test_folder_of_images(call: Any, network: Path, photos: Path, tmp_path: Path) -> None:
    """If this fails, a shell cannot compress a network, a line is wider than a terminal, or steps
    stay behind."""
    out, page = tmp_path / "fast.safetensors", tmp_path / "out.html"
    code, text, error = call(
        network, "--images", photos, "--speed-up", 4, "--int8", "--labels", tmp_path / "f.csv",
        "--max-drop", 0.9, "--out", out, "--report", page, "--mean", 0.5, "--std", 0.25,
    )  # fmt: skip
    assert code == 0, error
    assert quantizations(read(out)[0]) and page.read_text("utf-8").startswith("<!DOCTYPE html>")
    for words in ("step 1", "chosen", "of what evaluate gives", "confirm:", "bench"):
        assert words in text
    assert max(map(len, text.replace(str(tmp_path), "").splitlines())) <= 80
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "f.csv", "fast.safetensors", "net.onnx", "out.html", "photos",
    ]  # fmt: skip


def test_evaluate_and_resume(
    call: Any, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a function of the user's is not found or not asked, or a run that was stopped
    is begun anew or mixed with another one."""
    np.save(tmp_path / "x.npy", IMAGES.numpy())
    (tmp_path / "judging.py").write_text("def half(model):\n    return 0.5\n")
    monkeypatch.chdir(tmp_path)
    arguments = (
        network, "--images", "x.npy", "--density", 0.5, "--evaluate", "judging:half",
        "--out", "fast.safetensors",
    )  # fmt: skip
    code, text, error = call(*arguments, "--work", "steps")
    assert code == 0 and "0.5000" in text, error
    code, _, error = call(*arguments, "--work", "steps")
    assert code == 2 and "--resume" in error
    code, again, error = call(*arguments, "--work", "steps", "--resume")
    assert code == 0 and again == text, error
    code, _, error = call(*arguments, "--work", "steps", "--resume", "--method", "l1")
    assert code == 2 and "another method" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--speed-up", "2"], "--images"),
        (["--images", "x.npy"], "say what is wanted"),
        (["--images", "x.npy", "--labels", "f.csv", "--speed-up", "2"], "files in a folder"),
        (["--images", "x.npy", "--evaluate", "judging", "--speed-up", "2"], "MODULE:FUNCTION"),
        (["--images", "x.npy", "--evaluate", "no_such:f", "--speed-up", "2"], "ModuleNotFound"),
        (["--images", "x.npy", "--speed-up", "2", "--method", "l3"], "one of l1, omp, obs"),
    ],
)
def test_mistakes(
    call: Any, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], words: str,
) -> None:  # fmt: skip
    """If this fails, a mistake is a traceback, or leaves a file."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", IMAGES.numpy())
    code, _, error = call(network, *arguments)
    assert code == 2 and words in error and error.count("\n") == 1
    assert not Path("fast.safetensors").exists()
