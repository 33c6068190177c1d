"""Data sets in memory, batches and augmentation."""

from __future__ import annotations

import pytest
import torch

from kernelprune.data import Augmentation, augment, batches, load, steps_per_epoch
from kernelprune.errors import Error


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_digits_splits_do_not_overlap() -> None:
    """If this fails, accuracy is measured on images that were trained on."""
    parts = [load("digits", split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [1257, 180, 360]
    images = torch.cat([part.images for part in parts])
    whole = load("digits").images
    assert images.shape == (1797, 1, 8, 8)
    # digits holds no two equal images, so every image must be in one split only.
    assert len(torch.unique(images.flatten(1), dim=0)) == 1797
    assert whole.dtype == torch.float32


@pytest.mark.parametrize(("name", "split"), [("mnist", "train"), ("digits", "dev")])
def test_unknown_names_list_the_known(name: str, split: str) -> None:
    """If this fails, a typing error is answered with a KeyError."""
    with pytest.raises(Error, match="there are:"):
        load(name, split)


def test_epoch_covers_each_image_once() -> None:
    """If this fails, some images are trained on twice and others never."""
    data = load("digits")
    got = [labels for _, labels in batches(data, 64, seed=3, epoch=0)]
    assert len(got) == steps_per_epoch(len(data), 64) == 1257 // 64
    seen = torch.cat([images for images, _ in batches(data, 64, seed=3, epoch=0)])
    assert len(torch.unique(seen.flatten(1), dim=0)) == len(seen)


def test_batches_depend_on_seed_epoch_and_step_alone() -> None:
    """If this fails, a resumed training sees other images than an uninterrupted one."""
    data = load("digits")

    def epoch(seed: int, number: int, start: int = 0) -> list[torch.Tensor]:
        source = batches(
            data,
            128,
            seed=seed,
            epoch=number,
            start_step=start,
            augmentation=data.augmentation,
        )
        return [images for images, _ in source]

    whole = epoch(5, 2)
    torch.manual_seed(99)  # the global generator must not matter
    assert all(torch.equal(a, b) for a, b in zip(epoch(5, 2, 4), whole[4:], strict=True))
    assert not torch.equal(epoch(5, 3)[0], whole[0])
    assert not torch.equal(epoch(6, 2)[0], whole[0])


def test_shift_moves_whole_images() -> None:
    """If this fails, augmentation tears images apart, or moves all of a batch alike."""
    images = torch.zeros(200, 2, 9, 9)
    images[:, 0, 4, 4] = 1.0
    images[:, 1, 4, 4] = 2.0
    moved = augment(images, Augmentation(shift=2), generator())
    assert moved.shape == images.shape
    assert torch.equal(moved[:, 0] * 2, moved[:, 1])
    assert moved.sum(dim=(1, 2, 3)).tolist() == [3.0] * 200
    places = {tuple(place[1:].tolist()) for place in moved[:, 0].nonzero()}
    assert places == {(row, column) for row in range(2, 7) for column in range(2, 7)}


def test_shift_fills_with_the_border() -> None:
    """If this fails, black bars of a value that no image has appear at the edges."""
    images = torch.full((20, 1, 6, 6), 7.0)
    assert torch.equal(augment(images, Augmentation(shift=3), generator()), images)


def test_flip_mirrors_half_of_the_images() -> None:
    """If this fails, flips never or always happen, or turn images upside down."""
    images = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(400, 1, 1, 1)
    flipped = augment(images, Augmentation(flip=True), generator())
    mirrored = [torch.equal(image, images[0].flip(2)) for image in flipped]
    same = [torch.equal(image, images[0]) for image in flipped]
    assert all(a or b for a, b in zip(mirrored, same, strict=True))
    assert 140 < sum(mirrored) < 260


def test_no_augmentation_changes_nothing() -> None:
    """If this fails, evaluation-like batches are altered."""
    images = torch.rand(5, 3, 4, 4)
    assert torch.equal(augment(images, Augmentation(), generator()), images)


def test_few_images_make_one_batch() -> None:
    """If this fails, a data set smaller than a batch trains on nothing."""
    data = load("digits").first(10)
    assert [len(labels) for _, labels in batches(data, 64, seed=0, epoch=0)] == [10]
