"""What may be typed: shown by ``--help``, completed by the shell, and obeyed on any device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import kernelprune._emulator  # noqa: F401 (registers the device cuda-emulated)
import numpy as np
import pytest
from graphs import GraphBuilder

import kernelprune
from kernelprune.cli import doctor, main
from kernelprune.cli.choices import among, choice, several

CHOICES = {
    "train": ["one-cycle", "cosine", "bfloat16", "auto|cpu|cuda", "cifar100", "imagenet"],
    "prune": ["synaptic", "dkp", "scratch", "connection|channel", "global-normalised", "omp"],
    "quantize": ["mse(least", "minmax", "percentile", "nearest|learned"],
    "compress": ["l1,ompor", "nearest|learned", "auto|nchw|nhwc", "crop|stretch", "rgb|bgr"],
    "run": ["portable,avx2,avx512", "fast,strict,tf32,half", "cpu|cuda", "digits"],
    "inspect": ["portable,avx2,avx512", "fast,strict,tf32,half", "cpu|cuda"],
    "tune": ["portable,avx2,avx512", "fast|strict"],
    "report": ["portable,avx2,avx512", "fast|strict", "demo.json"],
    "bench": ["portable,avx2,avx512", "float32(fast),orstrict", "mnn-sparse"],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    build = GraphBuilder(np.random.default_rng(3))
    y = build.conv2d(build.input((1, 8, 8)), 4, padding=(1, 1, 1, 1))
    path = tmp_path / "model.safetensors"
    path.write_bytes(build.file(build.node("flatten", [y], (256,))))
    return path


def called(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    found = capsys.readouterr()
    return int(caught.value.code or 0), found.out + found.err


@pytest.mark.parametrize("command", CHOICES)
def test_help_shows_choices(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, who wants to know which words an option takes has to type a wrong one."""
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERMINAL_WIDTH", str(width))
        code, text = called(capsys, command, "--help")
        # Words break at the border of their column.
        cells = "".join(text.replace("│", " ").split())
        assert code == 0 and "…" not in text
        assert [word for word in CHOICES[command] if word not in cells] == [], text
        assert max(map(len, text.splitlines())) <= width


def test_completion_in_a_shell(tmp_path: Path) -> None:
    """If this fails, the shell completes nothing, or the wrong words."""
    typed = {
        "kernelprune inspect m --isa av": "avx512",
        "kernelprune bench m --against torch,openv": "torch,openvino",
    }
    for line, expected in typed.items():
        words = line.split()
        environment = {
            **os.environ,
            "_KERNELPRUNE_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-m", "kernelprune.cli"],
            env=environment, capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert expected in done.stdout.split(), done


def test_completion_can_be_installed(capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, there is completion, and nobody finds it."""
    code, text = called(capsys, "--help")
    assert code == 0 and "--install-completion" in text and "--show-completion" in text


def test_words() -> None:
    """If this fails, completion offers what cannot follow."""
    assert among(("cpu", "cuda"))("c") == ["cpu", "cuda"] and among(("cpu",))("x") == []
    assert several(("torch", "mnn"))("torch,") == ["torch,mnn"]
    assert several(("torch", "mnn"))("m") == ["mnn"]
    assert choice("Which.", ("a" * 20, "b" * 20)).help == f"Which. One of: {'a' * 20}, {'b' * 20}."
    assert choice("Which.", ("a", "b")).metavar == "a|b"


def test_device(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, a model file runs on a GPU from Python only."""
    x = np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    device = ("--device", "cuda-emulated")
    run = ("run", file, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    code, text = called(capsys, *run, *device, "--precision", "half")
    assert code == 0, text
    expected = kernelprune.Engine(file).run(x)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=0.02)
    assert not np.array_equal(np.load(tmp_path / "y.npy"), expected)
    code, text = called(capsys, "inspect", file, *device)
    assert code == 0 and "conv2d_0" in text
    code, text = called(capsys, "inspect", file, "--device", "tpu")
    assert code == 2 and "no such device" in text
    code, text = called(capsys, *run, "--precision", "half")
    assert code == 2 and "for CUDA devices" in text


def test_doctor_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, nobody learns whether the GPU computes right, or why there is none."""
    healthy, lines = doctor.examine_gpus(["cuda-emulated"])
    assert healthy and len(lines) == 5
    for line, precision in zip(lines, ("strict", "fast", "tf32", "half", "int8"), strict=True):
        assert f", {precision}: passed" in line and "cuda-emulated" in line
    healthy, lines = doctor.examine_gpus(["cuda:999"])
    assert healthy and len(lines) == 1 and "'cuda:999'" in lines[0]
    genuine = kernelprune.Engine.run
    monkeypatch.setattr(kernelprune.Engine, "run", lambda engine, x: genuine(engine, x) * 1.1)
    healthy, lines = doctor.examine_gpus(["cuda-emulated"])
    assert not healthy and all("FAILED" in line for line in lines)
