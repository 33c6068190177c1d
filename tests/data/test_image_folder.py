"""Images in files: found, cut, and read again the same way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kernelprune.data import ImageFiles, batches, load
from kernelprune.errors import Error
from kernelprune.train import evaluate

Image = pytest.importorskip("PIL.Image")


def save(path: Path, width: int, height: int, seed: int = 0, mode: str = "RGB") -> Path:
    """A picture whose red grows to the right and whose green grows downwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)[None, :]
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    pixels[..., 2] = seed
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, number in (("train", 50), ("val", 3)):
        for label, name in enumerate(("ant", "bee")):
            for i in range(number):
                save(tmp_path / split / name / f"{i}.png", 40 + i, 30, 100 * label)
    return tmp_path


def test_splits(folder: Path) -> None:
    """If this fails, classes are mixed up, or the validation images are trained on."""
    found = {s: load("imagenet", s, path=folder) for s in ("train", "validation", "test")}
    assert [len(each) for each in found.values()] == [98, 2, 6]
    files = [
        set(each.images.files) for each in found.values() if isinstance(each.images, ImageFiles)
    ]
    assert len(set.union(*files)) == 106
    test = found["test"]
    assert test.classes == ("ant", "bee") and test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.shape == (3, 224, 224) and len(test.first(2)) == 2
    images = test.images[torch.tensor([0, 5])]
    assert images.shape == (2, 3, 224, 224) and images.dtype == torch.float32
    blue = images[:, 2].mean((1, 2)) * 0.225 + 0.406
    assert torch.allclose(blue, torch.tensor([0.0, 100 / 255]), atol=1e-3)


def test_the_middle_is_cut_out(tmp_path: Path) -> None:
    """If this fails, images are squeezed, or tested on a corner."""
    image = ImageFiles((save(tmp_path / "a.png", 512, 256),))[:1][0]
    red = (image[0] * 0.229 + 0.485).mean(0)
    # 224 of 256 rows, and the 224 columns in the middle of 512.
    assert red[0].item() == pytest.approx(144 / 511, abs=0.01)
    assert red[-1].item() == pytest.approx(367 / 511, abs=0.01)
    green = (image[1] * 0.224 + 0.456).mean(1)
    assert green[0].item() == pytest.approx(16 / 255, abs=0.01)


def test_training_batches_depend_on_the_seed_alone(folder: Path) -> None:
    """If this fails, a resumed training sees other images than one that went on."""
    data = load("imagenet", path=folder)

    def read(seed: int, start: int = 0) -> list[torch.Tensor]:
        source = batches(
            data, 32, seed=seed, epoch=1, start_step=start, augmentation=data.augmentation
        )
        return [images for images, _ in source]

    whole, again, late, other = read(3), read(3), read(3, 1), read(4)
    assert len(whole) == 3
    for first, second in zip([*whole, whole[1]], [*again, late[0]], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(whole[0], other[0])
    # Parts of different size and place: the reds begin and end elsewhere.
    assert whole[0][:, 0, :, 0].mean(1).std() > 0.2


def test_grey_and_tall_images(tmp_path: Path) -> None:
    """If this fails, the odd image among a million stops a training."""
    files = [
        save(tmp_path / "grey.png", 60, 50, mode="L"),
        save(tmp_path / "palette.png", 60, 50, mode="P"),
        save(tmp_path / "line.png", 1, 90),
    ]
    images = ImageFiles(tuple(files), 32)
    assert images[:].shape == (3, 3, 32, 32)
    drawn = images.read(slice(None), torch.Generator().manual_seed(1))
    assert bool(drawn.isfinite().all())
    assert images[:0].shape == (0, 3, 32, 32)


def test_accuracy_reads_in_batches(folder: Path) -> None:
    """If this fails, testing a network loads a whole data set into memory."""
    test = load("imagenet", "test", path=folder)
    seen: list[int] = []

    def run(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        blue = images[:, 2].mean((1, 2))
        return torch.stack([-blue, blue], 1)

    assert evaluate.accuracy(lambda x: run(x + 1.7), test, batch_size=4) == 1.0
    assert seen == [4, 2]


def test_errors(tmp_path: Path, folder: Path) -> None:
    """If this fails, a wrong folder or a broken file ends in a traceback."""
    with pytest.raises(Error, match="ImageNet not found"):
        load("imagenet", path=tmp_path / "nowhere")
    broken = folder / "val" / "ant" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(Error, match="0.png: cannot be read"):
        load("imagenet", "test", path=folder).images[:]
    (folder / "val" / "cat").mkdir()
    with pytest.raises(Error, match="cat: no images"):
        load("imagenet", "test", path=folder)
    save(folder / "val" / "cat" / "1.jpg", 9, 9)
    with pytest.raises(Error, match="same folders"):
        load("imagenet", "test", path=folder)
