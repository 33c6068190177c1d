"""From photographs to classes, as a model file says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import kernelprune as kp
from kernelprune import Engine, Error, FormatError
from kernelprune.format import read
from kernelprune.format.writer import to_bytes
from kernelprune.runtime import Preprocessing

LABELS = ["cat", "dog", "a 'bird'", "Möwe", "\x1b[31mred"]


def network(channels: int = 3, last: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 5), last or nn.Identity()).eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "net.safetensors"
    x = torch.randn(1, 3, 32, 48)
    kp.export(network(), x, path, preprocessing="imagenet", labels=LABELS)
    return path


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)


def by_hand(photo: np.ndarray) -> np.ndarray:
    """The middle 32x48 of what is 3:2 and 8/7 as large, by ImageNet's numbers."""
    scale = min(70 / 48, 60 / 32) * 7 / 8
    left, top = (70 - 48 * scale) / 2, (60 - 32 * scale) / 2
    box = (left, top, left + 48 * scale, top + 32 * scale)
    small = Image.fromarray(photo).resize((48, 32), Image.Resampling.BILINEAR, box=box)
    numbers = np.asarray(small, np.float64) / 255
    numbers = (numbers - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return numbers.transpose(2, 0, 1).astype(np.float32)


def test_classes(file: Path, photo: np.ndarray, tmp_path: Path) -> None:
    """If this fails, a photograph gets the class of another, or of one prepared in another way."""
    engine = Engine(file)
    with torch.no_grad():
        logits = network()(torch.from_numpy(by_hand(photo))[None])[0]
    want = logits.softmax(0).numpy()
    Image.fromarray(photo).save(tmp_path / "photo.png")
    for image in (
        photo,
        Image.fromarray(photo),
        tmp_path / "photo.png",
        str(tmp_path / "photo.png"),
    ):
        found = engine.classify(image, top=3)
        order = np.argsort(-want)[:3]
        assert [guess.index for guess in found] == order.tolist()
        assert [guess.label for guess in found] == [LABELS[place] for place in order]
        assert np.allclose([guess.score for guess in found], want[order], atol=1e-4)
    several = engine.classify([photo, photo[:, ::-1]])
    assert engine.classify(np.stack([photo, photo[:, ::-1]])) == several
    assert several[0] == engine.classify(photo) and [len(each) for each in several] == [5, 5]
    assert engine.classify([]) == []


def test_a_softmax_is_not_taken_twice(photo: np.ndarray, tmp_path: Path) -> None:
    """If this fails, the scores of networks that give probabilities are flattened."""
    x = torch.randn(1, 3, 32, 48)
    for name, last in (("plain", None), ("soft", nn.Softmax(1))):
        kp.export(network(last=last), x, tmp_path / name, preprocessing="imagenet")
    plain, soft = (Engine(tmp_path / name).classify(photo) for name in ("plain", "soft"))
    assert [guess.label for guess in soft] == [None] * 5
    assert np.allclose([a.score - b.score for a, b in zip(plain, soft, strict=True)], 0, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "pixel", "want"),
    [
        ({"size": (1, 1)}, (255, 0, 51), [1, 0, 0.2]),
        ({"size": (1, 1), "channels": "bgr", "white": 255.0}, (255, 0, 51), [51, 0, 255]),
        ({"size": (1, 1), "mean": (0.5,), "std": (0.5,)}, (255, 0, 51), [1, -1, -0.6]),
        ({"size": (1, 1), "std": (1.0, 2.0, 4.0)}, (255, 255, 255), [1, 0.5, 0.25]),
        ({"size": (1, 1), "channels": "gray"}, (255, 255, 255), [1]),
    ],
)
def test_numbers(given: dict, pixel: tuple, want: list) -> None:
    """If this fails, a network sees other colours than those it was trained with."""
    image = np.full((4, 6, 3), pixel, np.uint8)
    for layout in ("chw", "hwc"):
        found = Preprocessing(**given, layout=layout)
        assert found(image).shape == found.shape and found(image).dtype == np.float32
        assert np.allclose(found(image).ravel(), want, atol=1e-6)
        assert Preprocessing.from_json(found.to_json()) == found


def test_fits() -> None:
    """If this fails, what is in the middle is cut off, or a picture is squeezed."""
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 255
    cut = Preprocessing((10, 10), margin=1.0)(image)
    assert (cut == 1).all()
    squeezed = Preprocessing((10, 10), fit="stretch")(image)
    assert squeezed[0, 5].tolist()[0] == 0 and squeezed[0, 5, 5] == 1


@pytest.mark.parametrize("margin", [1.0, 8 / 7])
def test_every_size_has_a_middle(margin: float) -> None:
    """If this fails, the rounding of a cut makes Pillow refuse images of some sizes."""
    prepare = Preprocessing((224, 224), margin=margin)
    for width in range(5, 400, 24):
        for height in range(4, 400, 15):
            left, top, right, bottom = prepare._box(width, height)
            assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert prepare(np.zeros((34, 29, 3), np.uint8)).shape == (3, 224, 224)


def test_sixteen_bits(tmp_path: Path) -> None:
    """If this fails, images of 16 bits a pixel, as of microscopes, are white all over."""
    deep = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    found = Preprocessing((8, 8), channels="gray", margin=1.0, white=255.0)(tmp_path / "deep.png")
    assert np.array_equal(found[0], deep >> 8)
    for wrong in (np.ones((8, 8), np.float32), np.full((8, 8), -1, np.int32)):
        with pytest.raises(Error, match="image"):
            Preprocessing((8, 8))(Image.fromarray(wrong))


def test_numbers_of_other_libraries() -> None:
    """If this fails, the mean of a data set, as numpy or torch computes it, has to be spelt out."""
    mean = np.asarray([0.25, 0.5, 0.75], np.float32)
    for given in (mean, list(mean), torch.from_numpy(mean)):
        assert Preprocessing.of({"mean": given}, (3, 8, 8)).mean == (0.25, 0.5, 0.75)


def test_held_upright(tmp_path: Path) -> None:
    """If this fails, photographs of telephones are classified lying on their side."""
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees to see it
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    found = Preprocessing((8, 8), fit="stretch")(tmp_path / "turned.png")
    assert found[0, 0].min() == 1 and found[0, -1].max() == 0


def test_layout_of_the_input_is_seen(tmp_path: Path, photo: np.ndarray) -> None:
    """If this fails, networks with channels last, as from TensorFlow, need it said by hand."""
    found = Preprocessing.of("imagenet", (32, 48, 3))
    assert found.layout == "hwc" and found(photo).shape == (32, 48, 3)
    assert Preprocessing.of("unit", (1, 28, 28)).channels == "gray"
    assert Preprocessing.of({"mean": 0.5}, (3, 8, 8)).mean == (0.5,)


REFUSED: dict[str, tuple[object, str]] = {
    "a name": ("imagnet", "one of imagenet"),
    "another size": ({"size": (32, 32)}, "network takes"),
    "another layout": ({"layout": "hwc"}, "network takes"),
    "an unknown key": ({"scale": 1}, "no 'scale'"),
    "std 0": ({"std": (0.0,)}, "std"),
    "NaN": ({"mean": (float("nan"),)}, "mean"),
    "two means": ({"mean": (0.1, 0.2)}, "mean"),
    "true": ({"white": True}, "white"),
    "a large margin": ({"margin": 1e9}, "margin"),
    "words": ({"channels": "rbg"}, "channels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_export_refuses(name: str, tmp_path: Path) -> None:
    """If this fails, a file says what nobody can do, and a user learns it when it is deployed."""
    given, message = REFUSED[name]
    with pytest.raises(Error, match=message):
        kp.export(network(), torch.randn(1, 3, 32, 48), tmp_path / "m", preprocessing=given)
    assert not (tmp_path / "m").exists()


def test_export_refuses_labels(tmp_path: Path) -> None:
    """If this fails, a class is told by the name of another."""
    half = ["a", "b", "c", "d", "\ud800"]
    for labels in (["a"], list("abcdef"), "abcde", [1, 2, 3, 4, 5], [], half):
        with pytest.raises(Error, match="labels"):
            kp.export(network(), torch.randn(1, 3, 32, 48), tmp_path / "m", labels=labels)


HOSTILE: dict[str, tuple[str, str]] = {
    "no json": ("preprocessing", "{"),
    "a list": ("preprocessing", "[]"),
    "no size": ("preprocessing", "{}"),
    "a huge size": ("preprocessing", '{"size":[32,1000000000]}'),
    "a size of numbers": ("preprocessing", '{"size":[32.0,48]}'),
    "another size": ("preprocessing", '{"size":[48,32]}'),
    "size of one": ("preprocessing", '{"size":[32]}'),
    "infinite": ("preprocessing", '{"size":[32,48],"mean":[1e999]}'),
    "a long number": ("preprocessing", '{"size":[32,48],"white":1' + 400 * "0" + "}"),
    "std 0": ("preprocessing", '{"size":[32,48],"std":[0]}'),
    "std as text": ("preprocessing", '{"size":[32,48],"std":["1"]}'),
    "NaN": ("preprocessing", '{"size":[32,48],"mean":[NaN]}'),
    "null": ("preprocessing", '{"size":[32,48],"mean":null}'),
    "a key twice": ("preprocessing", '{"size":[32,48],"size":[32,48]}'),
    "a list of words": ("preprocessing", '{"size":[32,48],"channels":["rgb"]}'),
    "a truth": ("preprocessing", '{"size":[true,48]}'),
    "long": ("preprocessing", '{"size":[32,48],"mean":[' + 20_000 * "[]," + "0]}"),
    "long blanks": ("preprocessing", '{"size":[32,48]' + 20_000 * " " + "}"),
    "half a character": ("labels", '["a","b","c","d","\\ud800"]'),
    "labels too long": ("labels", '["a","b","c","d","' + (4 << 20) * "e" + '"]'),
    "deep": ("preprocessing", 5000 * "[" + 5000 * "]"),
    "labels in a row": ("labels", '"abcde"'),
    "too few": ("labels", '["a"]'),
    "numbers": ("labels", "[1,2,3,4,5]"),
    "nested": ("labels", '["a","b","c","d",["e"]]'),
    "none": ("labels", "[]"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str, file: Path, photo: np.ndarray) -> None:
    """If this fails, a file of a stranger crashes what classifies, or takes its memory. The network
    itself runs: nothing of it depends on these."""
    key, text = HOSTILE[name]
    graph, metadata = read(file)
    engine = Engine(to_bytes(graph, {**metadata, key: text}))
    engine.run(np.zeros((1, 3, 32, 48), np.float32))
    with pytest.raises(FormatError, match="the model's bytes: .*(preprocessing|label)"):
        engine.classify(photo)


def test_files_that_are_no_models() -> None:
    """If this fails, a state dict that has a tensor of that name ends in a traceback, where others
    are told what they are."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    for header in (json.dumps({"labels": entry}).encode(), b'{"preprocessing" "labels"'):
        with pytest.raises(FormatError):
            Engine(len(header).to_bytes(8, "little") + header)


def test_images_that_are_none(file: Path, tmp_path: Path) -> None:
    """If this fails, a file that is no image ends a long run with a traceback, or blocks it."""
    engine = Engine(file)
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    bad = [tmp_path / "text.png", tmp_path / "empty.jpg", tmp_path, tmp_path / "nowhere.png", 5]
    bad += [np.zeros((3, 4, 5), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
    for image in bad:
        with pytest.raises(Error):
            engine.classify(image)
    with pytest.raises(Error, match="top"):
        engine.classify(np.zeros((4, 4, 3), np.uint8), top=0)


def test_without_preprocessing(tmp_path: Path, photo: np.ndarray) -> None:
    """If this fails, images are prepared by a guess, and the classes are wrong in silence."""
    kp.export(network(), torch.randn(1, 3, 32, 48), tmp_path / "m")
    engine = Engine(tmp_path / "m")
    with pytest.raises(Error, match="how to prepare images"):
        engine.classify(photo)
    assert len(engine.classify(photo, preprocessing="unit")) == 5


def test_quantised_and_read_again(file: Path, photo: np.ndarray, tmp_path: Path) -> None:
    """If this fails, what a file says of its use is lost where the network becomes bytes."""
    x = torch.randn(16, 3, 32, 48)
    quantised = kp.quantize(network(), x)
    kp.export(quantised, x[:1], tmp_path / "m", preprocessing="imagenet", labels=LABELS)
    found = Engine(tmp_path / "m").classify(photo, top=1)
    assert found[0].label in LABELS
    assert json.loads(read(tmp_path / "m")[1]["labels"]) == LABELS
