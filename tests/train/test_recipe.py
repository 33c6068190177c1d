"""Recipes: what is in the folder works, mistakes are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from kernelprune import models
from kernelprune.data import names
from kernelprune.errors import Error
from kernelprune.train import (
    PruneOptions,
    Recipe,
    TrainOptions,
    export_run,
    load_checkpoint,
    load_model,
    load_recipe,
    recipe_run,
)

FOLDER = Path(__file__).parent.parent.parent / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_the_project(path: Path) -> None:
    """If this fails, a recipe names an option, a model or a data set that does not exist."""
    recipe = load_recipe(path)
    assert recipe.train is not None
    assert recipe.train.model in models.names() and recipe.train.dataset in names()
    assert path.name in (FOLDER / "README.md").read_text()


def shrunk(recipe: Recipe, model: str) -> Recipe:
    """The same methods on a few digits and a narrow network of that name: seconds."""
    assert recipe.train is not None
    kept = recipe.train.model_options if model == recipe.train.model else {}
    train = replace(
        recipe.train, dataset="digits", epochs=1.0, batch_size=32, limit=128, threads=1,
        model=model, model_options={**kept, "width": 0.125}, device="cpu",
    )  # fmt: skip

    def less(options: PruneOptions) -> PruneOptions:
        return replace(
            options, sparsify_epochs=min(options.sparsify_epochs, 0.5), stage_epochs=1,
            rounds=(rounds := min(options.rounds, 3)),
            samples=options.samples and 32, channels_per_step=8, device="cpu",
            recalibrate=min(options.recalibrate, 2),
            finetune_epochs=0.5 * rounds, finetune_learning_rate=0.01,
        )  # fmt: skip

    return Recipe(train, less(recipe.prune), recipe.then and less(recipe.then))


def on_its_own_network(path: Path):
    """The recipe with the network that it names. Capture and pruning of these are tested with the
    models; what a recipe adds is how its options work together, which a small one shows."""
    recipe = load_recipe(path)
    assert recipe.train is not None
    return pytest.param(path, recipe.train.model, marks=pytest.mark.extensive, id=path.stem)


@pytest.mark.parametrize(
    ("path", "model"),
    [*(pytest.param(path, "vgg_small", id=f"{path.stem}-small") for path in RECIPES),
     *(on_its_own_network(path) for path in RECIPES if "vgg-small" not in path.stem)],
)  # fmt: skip
def test_recipes_run(path: Path, model: str, tmp_path: Path) -> None:
    """If this fails, a recipe of the project stops somewhere on its way to a model file."""
    recipe = shrunk(load_recipe(path), model)
    result = recipe_run(recipe, tmp_path)
    last = recipe.then or recipe.prune
    assert result.folder == tmp_path / "pruned"
    if last.adaptive is None:  # which may keep everything of so narrow a network
        assert result.connections[0] < result.connections[1]
        assert result.plan.prunable_density == pytest.approx(last.density, abs=0.07)
    graph = export_run(tmp_path / "pruned", tmp_path / "model.safetensors")
    assert graph.kept_connections() <= result.connections[0]
    if recipe.then is not None:  # what went first is not back
        first, _ = load_model(load_checkpoint(tmp_path / "first"))
        weights = zip(first.state_dict().values(), result.model.state_dict().values(), strict=True)
        kernels = [pair for pair in weights if pair[0].ndim == 4]
        assert any((a == 0).any() for a, _ in kernels)
        assert not any((b[a == 0] != 0).any() for a, b in kernels)


def write(folder: Path, **sections) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"prune": {"densty": 0.1}}, "no option 'densty'; did you mean 'density'"),
        ({"train": {"epoch": 1}}, "no option 'epoch'; did you mean 'epochs'"),
        ({"pruning": {}}, "no section 'pruning'; did you mean 'prune'"),
        ({"prune": {"density": "a tenth"}}, "density='a tenth': must be a number above 0"),
        ({"prune": {"rounds": True}}, "rounds=True: must be a whole number at least 1"),
        ({"prune": {"ignore": "conv1"}}, "ignore: 'conv1' is not of the kind list"),
        ({"prune": {"density": 2.0}}, "density=2.0: must be a number above 0 and at most 1"),
        ({"prune": {"method": "dcp", "level": "connection"}}, "only 'channel'"),
        ({"prune": [1]}, "must have sections"),
    ],
    ids=str,
)
def test_mistakes_are_named(tmp_path: Path, sections: dict, message: str) -> None:
    """If this fails, a mistake in a recipe is taken in silence or ends in a traceback."""
    with pytest.raises(Error, match=message):
        load_recipe(write(tmp_path, **sections))


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    """If this fails, a wrong path or a broken file ends in a traceback."""
    with pytest.raises(Error, match="none.yaml"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("prune: [")
    with pytest.raises(Error, match="broken.yaml"):
        load_recipe(tmp_path / "broken.yaml")


def test_values(tmp_path: Path) -> None:
    """If this fails, a value of the recipe does not arrive, or defaults change."""
    train = {"model": "resnet20", "model_options": {"width": 0.5}, "epochs": 2}
    recipe = load_recipe(write(tmp_path, train=train, prune={"macs": None, "ignore": ["a.*"]}))
    assert recipe.train == TrainOptions(model="resnet20", model_options={"width": 0.5}, epochs=2)
    assert recipe.prune == PruneOptions(ignore=["a.*"])
    with pytest.raises(Error, match="no section 'train'"):
        recipe_run(load_recipe(write(tmp_path, prune={})), tmp_path / "out")
    twice = load_recipe(write(tmp_path, prune={"method": "dcp"}, then={"density": 0.2}))
    assert twice.then == PruneOptions(density=0.2) and recipe.then is None
    wrong = load_recipe(write(tmp_path, train={}, prune={}, then={"ignore": ["conv9"]}))
    with pytest.raises(Error, match="no module 'conv9'"):
        recipe_run(wrong, tmp_path / "out")
    assert not (tmp_path / "out").exists()  # found before the training


def test_trains_and_prunes(tmp_path: Path) -> None:
    """If this fails, a recipe's two halves do not find each other."""
    train = {"model_options": {"width": 0.125}, "dataset": "digits", "epochs": 1, "limit": 128}
    prune = {"method": "l2", "density": 0.3, "finetune_epochs": 0}
    recipe = load_recipe(write(tmp_path, train={**train, "threads": 1}, prune=prune))
    result = recipe_run(recipe, tmp_path / "out")
    assert result.folder == tmp_path / "out" / "pruned"
    assert result.plan.prunable_density == pytest.approx(0.3, abs=0.01)
    alone = recipe_run(recipe, tmp_path / "alone", source=tmp_path / "out" / "dense")
    assert alone.folder == tmp_path / "alone"
    assert str(alone.plan) == str(result.plan)
