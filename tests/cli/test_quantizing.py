"""``kernelprune quantize``: what it prints, what it writes, how it fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder

from kernelprune.cli import main
from kernelprune.data import load
from kernelprune.format import read
from kernelprune.graph.quantization import quantizations


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A model for the digits: two convolutions, the mean of each map, ten scores."""
    build = GraphBuilder(np.random.default_rng(3))
    y = build.conv2d(build.input((1, 8, 8)), 32, padding=(1, 1, 1, 1), activation="relu")
    y = build.conv2d(y, 10, padding=(1, 1, 1, 1), density=0.3)
    y = build.node("global_avg_pool", [y], (10, 1, 1))
    path = tmp_path / "model.safetensors"
    path.write_bytes(build.file(build.node("flatten", [y], (10,))))
    return path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        text = capsys.readouterr()
        return int(caught.value.code or 0), text.out, text.err

    return run


def layers_of(path: Path) -> dict[str, bool]:
    """By layer: does it have integer weights?"""
    graph = read(path)[0]
    return {node.name: node.weight_scale is not None for node in graph.nodes if node.has_weight()}


def test_array(call, file: Path, tmp_path: Path) -> None:
    """If this fails, a model file cannot be quantised from a shell, or the report is lost."""
    np.save(tmp_path / "x.npy", load("digits", "train").images[:40].numpy())
    out = tmp_path / "int8.safetensors"
    code, text, _ = call("quantize", file, "--images", tmp_path / "x.npy", "--out", out)
    assert code == 0
    for words in ("conv2d_0", "SNR dB", "2 of 2 layers in int8", "40 images", "bench"):
        assert words in text
    assert layers_of(out) == {"conv2d_0": True, "conv2d_1": True}
    assert quantizations(read(out)[0]) and read(out)[1]["precision"] == "int8"
    assert out.stat().st_size < 0.75 * file.stat().st_size


def test_data_set_and_options(call, file: Path, tmp_path: Path) -> None:
    """If this fails, an option is taken and not obeyed."""
    out = tmp_path / "int8.safetensors"
    command = ("quantize", file, "--images", "digits", "--out", out, "--samples", 30)
    code, text, _ = call(*command, "--method", "minmax", "--ignore", "conv2d_0", "--equalize")
    assert code == 0 and "minmax of 30 images" in text and "1 of 2 layers" in text
    assert layers_of(out) == {"conv2d_0": False, "conv2d_1": True}
    code, text, _ = call(*command, "--max-drop", 0.5)
    assert code == 0 and "evaluate:" in text and "2 of 2 layers" in text


def test_checkpoint(call, tmp_path: Path) -> None:
    """If this fails, a training has to be exported before it can be quantised, and its data set
    named again."""
    train = ["train", "--out", tmp_path / "run", "--data", "digits", "--epochs", 0.2]
    assert call(*train, "--threads", 1, "--model-option", "width=0.25", "--batch", 64)[0] == 0
    out = tmp_path / "int8.safetensors"
    code, text, _ = call("quantize", tmp_path / "run", "--out", out, "--samples", 64)
    assert code == 0 and "64 images" in text
    assert all(layers_of(out).values())


def test_errors(call, file: Path, tmp_path: Path) -> None:
    """If this fails, a mistake ends in a traceback, or says not what to do."""
    out = ("--out", tmp_path / "out")
    np.save(tmp_path / "x.npy", np.zeros((4, 1, 8, 8), np.float32))
    np.save(tmp_path / "other.npy", np.zeros((4, 3, 8, 8), np.float32))
    array = ("--images", tmp_path / "x.npy")
    cases = {
        "--images": (file,),
        "[N, 1, 8, 8]": (file, "--images", tmp_path / "other.npy"),
        "no such file": (file, "--images", tmp_path / "none.npy"),
        "unknown data set": (file, "--images", "digit"),
        "--max-drop needs labels": (file, *array, "--max-drop", 0.1),
        "must be one of mse": (file, *array, "--method", "best"),
        "there are: conv2d_0": (file, *array, "--ignore", "conv9"),
        "no checkpoint": (tmp_path, *array),
        "is this a safetensors file": (tmp_path / "x.npy", *array),
    }
    for words, arguments in cases.items():
        code, _, error = call("quantize", *arguments, *out)
        assert code == 2 and error.startswith("error: ") and error.count("\n") == 1, words
        assert words.lower() in error.lower(), (words, error)
    assert not (tmp_path / "out").exists()


def test_what_is_written_can_be_raced(call, file: Path, tmp_path: Path) -> None:
    """If this fails, the command that `quantize` names next fails, or a float32 model cannot be
    raced in int8; or names of peers that are asked for are lost."""
    x = tmp_path / "x.npy"
    np.save(x, load("digits", "train").images[:20].numpy())
    out = tmp_path / "int8.safetensors"
    assert call("quantize", file, "--images", x, "--out", out)[0] == 0
    short = ("-b", 2, "-n", 2, "--warm-up", 0, "--no-start-up")
    for raced in ((out,), (file, "--precision", "int8", "--images", x)):
        code, text, _ = call("bench", *raced, *short, "--against", "onnxruntime-int8,openvino")
        assert code == 0
        for words in ("float32", "onnxruntime-", "distance from float32: kernelprune"):
            assert words in text
    # Without names those of int8 are taken for bytes, those of float32 for the others.
    assert "openvino-bf16" in call("bench", out, *short)[1]
    code, _, error = call("bench", out, "--precision", "strict")
    assert code != 0 and "holds bytes" in error
