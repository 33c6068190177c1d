"""What is given for a model file by mistake: the message says what it is and what to type."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch

from kernelprune.benchmarking import benchmark
from kernelprune.cli import main
from kernelprune.errors import FormatError
from kernelprune.format import read
from kernelprune.runtime import Engine, tune
from kernelprune.train.checkpoint import Checkpoint, save_checkpoint

READERS = {
    "engine": Engine,
    "format": read,
    "tune": tune,
    "benchmark": lambda path: benchmark(path, against=(), iterations=1),
}


def state_dict() -> dict[str, torch.Tensor]:
    return {"conv.weight": torch.ones(2, 2, 3, 3)}


def checkpoint(folder: Path) -> Path:
    return save_checkpoint(folder, Checkpoint(state_dict(), {}, {"step": 1}))


def without_metadata(path: Path) -> Path:
    """A safetensors file as it is written without metadata."""
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:end])
    del header["__metadata__"]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[end:])
    return path


def mistakes(folder: Path) -> dict[str, tuple[Path, list[str]]]:
    """A path and the words of its message, by what it is."""
    torch.save(state_dict(), folder / "net.pt")
    torch.save(state_dict(), folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "weights.pkl").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    (folder / "net.onnx").write_bytes(b"\x08\x08\x12\x04test")
    own = checkpoint(folder / "run")
    old = checkpoint(folder / "old")
    without_metadata(old / "model.safetensors")
    alone = folder / "alone.safetensors"
    alone.write_bytes((old / "model.safetensors").read_bytes())
    export = ["this is a checkpoint", "kernelprune export --from"]
    loads = ["load it into its torch model", "kernelprune.export"]
    return {
        "torch": (folder / "net.pt", ["checkpoint of torch", *loads]),
        "torch before 1.6": (folder / "old.pt", ["pickle", *loads]),
        "pickle": (folder / "weights.pkl", ["pickle", *loads]),
        "ONNX": (folder / "net.onnx", ["ONNX", f"kernelprune export {folder / 'net.onnx'}"]),
        "checkpoint's tensors": (own / "model.safetensors", [*export, str(own)]),
        "momenta": (own / "optimizer.safetensors", [*export, str(own)]),
        "checkpoint": (own, [*export, str(own)]),
        "training": (folder / "run", [*export, str(folder / "run")]),
        "checkpoint of before": (old / "model.safetensors", [*export, str(old)]),
        "state dict": (alone, ["a state dict", *loads]),
    }


@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
def test_what_is_no_model_file(tmp_path: Path, reader) -> None:
    """If this fails, who mixes up a checkpoint with a model file reads of sizes of headers, and not
    which command makes the one of the other."""
    for path, words in mistakes(tmp_path).values():
        with pytest.raises(FormatError) as caught:
            reader(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and "\n" not in message
        assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize("command", ["run", "inspect", "bench", "tune"])
def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """If this fails, a command answers in another way than the library."""
    run = tmp_path / "run"
    checkpoint(run)
    more = ["--data", "digits"] if command == "run" else []
    with pytest.raises(SystemExit) as caught:
        main([command, str(run), *more])
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1
    assert f"kernelprune export --from {run}" in error


def test_damaged_models_keep_their_message(tmp_path: Path) -> None:
    """If this fails, a model file that was cut is taken for something else."""
    path = tmp_path / "cut.safetensors"
    header = json.dumps({"__metadata__": {"format": "kernelprune"}}).encode()
    for content in (b"", b"abc", b"\xff" * 100, struct.pack("<Q", len(header)) + header):
        path.write_bytes(content)
        for work in (Engine, read):
            with pytest.raises(FormatError) as caught:
                work(path)
            assert "this is" not in str(caught.value).replace("is this", "")
    empty = tmp_path / "folder"
    empty.mkdir()
    for work in (Engine, read):
        with pytest.raises(Exception, match="not a regular file"):
            work(empty)
