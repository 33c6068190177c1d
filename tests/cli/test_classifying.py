"""``kernelprune run FILE photo.jpg``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import kernelprune as kp
from kernelprune.cli.app import app
from kernelprune.cli.entry import main as _main  # noqa: F401  registers the commands
from kernelprune.cli.exporting import read_labels

LABELS = ["cat", "dog", "bird of paradise " * 6, "Möwe", "\x1b[31mred"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two model files, one of which says nothing of images, and a folder of three images."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model, x = nn.Sequential(*layers, nn.Linear(8, 5)).eval(), torch.randn(1, 3, 32, 48)
    kp.export(model, x, folder / "net.safetensors", preprocessing="imagenet", labels=LABELS)
    kp.export(model, x, folder / "plain.safetensors")
    (folder / "photos" / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("photos/a.png", "photos/b.png", "photos/more/c.png"):
        Image.fromarray(rng.integers(0, 256, (50, 60, 3), np.uint8)).save(folder / name)
    return folder


def run(folder: Path, *words: str, file: str = "net.safetensors") -> str:
    result = CliRunner().invoke(app, ["run", str(folder / file), *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the best classes of a photograph are not what a user sees, or a label takes
    over the terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    photo = folder / "photos" / "a.png"
    text = run(folder, photo)
    assert max(map(len, text.splitlines())) <= 80 and "\x1b" not in text
    scores = [float(word[:-1]) for word in text.split() if word.endswith("%")]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)
    best = kp.Engine(folder / "net.safetensors").classify(photo, top=1)[0]
    assert f"{best.score:.1%}" in text.splitlines()[1]


def test_json_and_csv_of_folders_and_patterns(folder: Path, tmp_path: Path) -> None:
    """If this fails, a program that reads the result misses an image or takes it for another."""
    found = json.loads(run(folder, folder / "photos", "--json", "--top", "2", "--batch", "2"))
    assert [Path(entry["image"]).name for entry in found] == ["a.png", "b.png", "c.png"]
    engine = kp.Engine(folder / "net.safetensors")
    for entry in found:
        want = engine.classify(entry["image"], top=2)
        assert [each["label"] for each in entry["classes"]] == [guess.label for guess in want]
    lines = list(csv.DictReader(io.StringIO(run(folder, folder / "photos" / "*.png", "--csv"))))
    assert len(lines) == 10 and [line["rank"] for line in lines[:5]] == list("12345")
    run(folder, folder / "photos", "--output", tmp_path / "out.csv")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 16


def test_given_by_hand(folder: Path, tmp_path: Path) -> None:
    """If this fails, a file that does not say how to prepare images cannot be used with any."""
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    (tmp_path / "how.json").write_text(
        '{"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}'
    )
    photo = folder / "photos" / "a.png"
    want = json.loads(run(folder, photo, "--json"))[0]["classes"]
    for how in ("imagenet", tmp_path / "how.json"):
        words = ("--json", "--preprocessing", how, "--labels", tmp_path / "names.txt")
        found = json.loads(run(folder, photo, *words, file="plain.safetensors"))[0]["classes"]
        assert [each["score"] for each in found] == [each["score"] for each in want]
        assert [each["label"] for each in found] == ["abcde"[each["index"]] for each in want]


def test_labels_of_tables(tmp_path: Path) -> None:
    """If this fails, the names of a table go to other classes than it says."""
    file = tmp_path / "names.csv"
    for text in (
        'a\nb\n"c, d"\n',
        '0,a\n1,b\n2,"c, d"\n',
        '2,"c, d"\n0,a\n\n1,b\n',
        '\ufeffIndex,Label,more\n1,b,x\n0,a,y\n2,"c, d",z\n',
        'label\na\nb\n"c, d"\n',
    ):
        file.write_text(text, encoding="utf-8")
        assert read_labels(file) == ["a", "b", "c, d"]
    for text in (
        "0,a\n2,b\n",
        "0,a\n0,b\n",
        "x,a\ny,b\n",
        "0,a\n1\n",
        'a\n"b',
        "",
        "label,more\n1\n",
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(kp.Error, match="names.csv|labels: none"):
            read_labels(file)
    file.write_bytes(b"a\n\xff\n")
    with pytest.raises(kp.Error, match="byte 2 is not UTF-8"):
        read_labels(file)


def test_refuses(folder: Path, tmp_path: Path) -> None:
    """If this fails, a mistake on the command line ends in a traceback or in wrong classes."""
    photo = folder / "photos" / "a.png"
    (tmp_path / "names.txt").write_text("a\nb\n")
    (tmp_path / "empty").mkdir()
    for words, file, message in (
        ((photo,), "plain.safetensors", "how to prepare images"),
        ((photo, "--data", "digits"), "net.safetensors", "not both"),
        ((photo, "--top", "0"), "net.safetensors", "--top"),
        ((photo, "--labels", tmp_path / "names.txt"), "net.safetensors", "2 labels"),
        ((photo, "--preprocessing", "imagnet"), "net.safetensors", "one of imagenet"),
        ((tmp_path / "empty",), "net.safetensors", "no images"),
        ((tmp_path / "*.jpg",), "net.safetensors", "no images"),
        ((tmp_path / "nowhere.jpg",), "net.safetensors", "nowhere.jpg"),
        (("--json",), "net.safetensors", "are for images"),
    ):
        with pytest.raises(kp.Error, match=message):
            run(folder, *words, file=file)
