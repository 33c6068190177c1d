"""Recipes from a stranger: any YAML file is a recipe or one clear Error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernelprune.errors import Error
from kernelprune.train import PruneOptions, TrainOptions, load_recipe

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune: " + "[" * 20_000, "nested too deep"),
        ("prune: " + "{a: " * 20_000, "nested too deep"),
        ("- " * 20_000, "nested too deep"),
        (BOMB + "train: {model: *i}", "aliases"),
        ("a: &a {x: 1}\ntrain:\n  <<: [*a, *a]", "aliases"),
        ("prune: &p {ignore: *p}", "aliases"),
        ("prune: {seed: 1, seed: 2}", "twice"),
        ("prune: {}\nprune: {}", "twice"),
        ("prune: {[1, 2]: 3}", "no word"),
        ("prune: {1: 2}", "no option 1"),
        ("1: {}", "no section 1"),
        ("prune: {density: .nan}", "density=nan: must be a number above 0"),
        ("prune: {penalty: .inf}", "penalty=inf: must be a number at least 0"),
        (
            "prune: {method: dkp, channels_per_step: .inf}",
            "channels_per_step=inf: must be a number",
        ),
        ("train: {model_options: {width: .nan}}", "width must be finite"),
        ("train: {model_options: {width: [1]}}", "width must be a number or a word"),
        ("train: {model_options: {1: 2}}", "1 is not a name"),
        ("train: {seed: " + "9" * 5000 + "}", "digits"),
        ("train: {seed: 0x" + "f" * 5000 + "}", "seed must be below"),
        ("train: {epochs: 1" + "0" * 400 + "}", "epochs must be below"),
        (
            "train: {threads: 1000000000000}",
            "threads=1000000000000: must be a whole number .* at most 4096",
        ),
        ('train: {data_path: "a\\0b"}', "zero byte"),
        ("prune: {seed: 2001-99-99}", "month"),
        ("prune: {ignore: !!binary xx}", "base64|kind"),
        ("prune: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("prune: {seed: \x1b}", "special characters"),
        ("- " * 600_000, "larger than"),
        ("", "must have sections"),
        ("--- {}\n--- {}", "expected a single document"),
    ],
    ids=lambda value: repr(value)[1:20],
)
def test_hostile_recipes(tmp_path: Path, text: str, message: str) -> None:
    """If this fails, a recipe ends in a traceback, eats all memory, or means two things."""
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(Error, match=message) as caught:
        load_recipe(file)
    assert "recipe.yaml: " in str(caught.value) and len(str(caught.value)) < 500


def test_recipes_that_are_no_text(tmp_path: Path) -> None:
    """If this fails, a file of another kind ends in a traceback."""
    file = tmp_path / "recipe.yaml"
    for content in (b"\xff\xfe\x00", b"\x80\x04\x95", bytes(range(256))):
        file.write_bytes(content)
        with pytest.raises(Error, match="recipe.yaml"):
            load_recipe(file)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainOptions(epochs="many"), "epochs='many': must be a number above 0"),
        (lambda: TrainOptions(batch_size=2.5), "batch_size=2.5: must be a whole number at least 2"),
        (lambda: TrainOptions(model=None), "model: None is not of the kind str"),
        (lambda: TrainOptions(augment=1), "augment: 1 is not of the kind bool"),
        (lambda: TrainOptions(seed=2**64), "seed must be below"),
        (lambda: PruneOptions(density=[0.1]), r"density=\[0.1\]: must be"),
        (lambda: PruneOptions(ignore=[1]), "ignore must be a list of names"),
        (lambda: TrainOptions.from_dict(None), "TrainOptions are NoneType"),
    ],
)
def test_options_of_a_program(make, message: str) -> None:
    """If this fails, a wrong value in a program ends in a traceback from deep inside."""
    with pytest.raises(Error, match=message):
        make()


def test_numbers_of_numpy() -> None:
    """If this fails, an option that numpy computed is refused, or cannot be written as JSON."""
    options = TrainOptions(epochs=np.float32(0.5), batch_size=np.int64(4))
    assert (type(options.epochs), type(options.batch_size)) == (float, int)
    assert options == TrainOptions(epochs=0.5, batch_size=4)
