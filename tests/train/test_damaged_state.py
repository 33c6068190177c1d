"""Checkpoints that somebody tampered with, or a disk did: they load, or there is one clear Error.

No training takes place: what restoring looks at is all there before the first step.
"""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from kernelprune.data import Dataset
from kernelprune.errors import Error
from kernelprune.prune import attach_masks, load_masks, save_masks
from kernelprune.train import (
    PruneOptions,
    Trainer,
    TrainOptions,
    load_checkpoint,
    load_model,
    save_checkpoint,
)
from kernelprune.train.loop import make_model

OPTIONS = TrainOptions(
    model="vgg_small",
    model_options={"width": 0.05},
    epochs=4,
    batch_size=4,
    threads=1,
    device="cpu",
)
STATE = {"num_classes": 3, "shape": [1, 8, 8], "kind": "train", "prune": PruneOptions().to_dict()}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((8, 1, 8, 8), generator=generator)
    return Dataset("few", "train", images, torch.arange(8) % 3, ("a", "b", "c"))


def trainer(dataset: Dataset) -> Trainer:
    model = make_model(OPTIONS, 3, [1, 8, 8])
    return Trainer(model, dataset, OPTIONS, extra_state=STATE)


@pytest.fixture(scope="module")
def saved(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a checkpoint at step 2 of 8, by name."""
    training = trainer(dataset)
    training.total_steps = 2
    training.run()
    training.total_steps = 8
    folder = save_checkpoint(tmp_path_factory.mktemp("run"), training.checkpoint())
    return {file.name: file.read_bytes() for file in folder.iterdir()}


class Place:
    """A folder whose checkpoint is written anew for each case, and all that reads one."""

    def __init__(self, folder: Path, saved: dict[str, bytes], dataset: Dataset) -> None:
        self.folder, self.saved, self.dataset = folder, saved, dataset
        self.trainer = trainer(dataset)

    def read(self, **changed: bytes) -> None:
        """Raises what the reading of the changed checkpoint raises."""
        for name, content in self.saved.items():
            (self.folder / name).write_bytes(changed.get(name.partition(".")[0], content))
        found = load_checkpoint(self.folder)
        load_model(found)
        self.trainer.step, self.trainer.history = 0, []
        self.trainer.restore(found)
        assert 0 <= self.trainer.step <= 8

    def state(self, change: dict[str, Any]) -> None:
        self.read(state=json.dumps(json.loads(self.saved["state.json"]) | change).encode())


@pytest.fixture
def place(tmp_path: Path, saved: dict[str, bytes], dataset: Dataset) -> Place:
    return Place(tmp_path, saved, dataset)


def test_undamaged(place: Place) -> None:
    """If this fails, the tests below refuse what they should take."""
    place.read()
    assert place.trainer.step == 2 and len(place.trainer.history) == 1
    place.state({})


TAMPERED = [
    ({"step": -5}, "step"),
    ({"step": 2.0}, "step"),
    ({"step": True}, "step"),
    ({"step": 9}, "total_steps"),
    ({"step": 9, "total_steps": 9}, "data set is another"),
    ({"step": 10**30}, "step"),
    ({"total_steps": 1}, "total_steps"),
    ({"total_steps": None}, "total_steps"),
    ({"history": 5}, "history"),
    ({"history": [[]]}, "history"),
    ({"history": [{"step": 2}]}, "history"),
    ({"history": [{"step": 2, "loss": "x", "accuracy": 0, "validation": None}]}, "history"),
    ({"shape": []}, "shape"),
    ({"shape": [1, 8]}, "shape"),
    ({"shape": ["1", 8, 8]}, "shape"),
    ({"shape": [10**18, 8, 8]}, "shape"),
    ({"shape": None}, "shape"),
    ({"num_classes": 0}, "at least 1"),
    ({"num_classes": "3"}, "num_classes"),
    ({"num_classes": 1 << 20}, "weights are not of"),
    ({"momenta": 1}, "momentum of some parameters is missing"),
    ({"momenta": -1}, "momenta"),
    ({"options": None}, "TrainOptions are NoneType"),
    ({"options": []}, "TrainOptions are list"),
    ({"options": {}}, "weights are not of"),
    ({"options": {"epochs": "4"}}, "epochs"),
    ({"options": {"model": "vgg_small\0"}}, "zero byte"),
    ({"options": {"model": "none\x1b[2J"}}, r"none\\x1b"),
    ({"options": {"seed": 2**70}}, "seed"),
    ({"options": {**OPTIONS.to_dict(), "model_options": {"width": 1e6}}}, "weights are not of"),
    ({"options": {**OPTIONS.to_dict(), "model_options": {"width": 1e300}}}, "vgg_small"),
    ({"options": {**OPTIONS.to_dict(), "model_options": {"depth": 2}}}, "depth"),
    ({"options": {**OPTIONS.to_dict(), "batch_size": 8}}, "batch_size=8"),
    ({"prune": 7}, "PruneOptions are int"),
    ({"prune": {"density": 7}}, "density"),
]


@pytest.mark.parametrize(("change", "message"), TAMPERED, ids=lambda value: str(value)[:40])
def test_tampered_state(place: Place, change: dict[str, Any], message: str) -> None:
    """If this fails, a training goes on from a state that none ever had, or from a traceback."""
    with pytest.raises(Error, match=message):
        place.state(change)


@pytest.mark.parametrize(
    "text", ['{"step": 1, "step": 2}', "[" * 100_000, '{"a": NaN}', "[]", "null", "\udcff", ""]
)
def test_state_that_is_no_state(place: Place, text: str) -> None:
    """If this fails, a file of another kind in place of the state is a traceback."""
    with pytest.raises(Error, match=r"state\.json"):
        place.read(state=text.encode("utf-8", "surrogateescape"))


def tensors_with(content: bytes, **changed: torch.Tensor | None) -> bytes:
    """A safetensors file with other tensors: ``first`` stands for the first one of its names."""
    from safetensors.torch import load, save

    found = load(content)
    for name, value in changed.items():
        key = next(iter(found)) if name == "first" else name
        if value is None:
            del found[key]
        else:
            found[key] = value
    return save(found)


@pytest.mark.parametrize(
    ("file", "changed", "message"),
    [
        ("model", {"first": None}, "tensor"),
        ("model", {"more": torch.ones(1)}, "also has a tensor 'more'"),
        ("model", {"first": torch.ones(1)}, "tensor"),
        ("model", {"classifier.weight": torch.ones(1)}, "tensor"),
        ("optimizer", {"first": None}, "momentum of some parameters is missing"),
        ("optimizer", {"more": torch.ones(1)}, "momentum of some parameters is missing"),
        ("optimizer", {"torch_rng_state": torch.ones(1)}, "generators"),
        ("optimizer", {"torch_rng_state": torch.zeros(5056, dtype=torch.uint8)}, "generators"),
        ("optimizer", {"torch_rng_state": torch.ones(3, dtype=torch.uint8)}, "generators"),
    ],
    ids=str,
)
def test_tampered_tensors(place: Place, file: str, changed: dict, message: str) -> None:
    """If this fails, weights or momentum of another model are taken for this one's."""
    content = tensors_with(place.saved[f"{file}.safetensors"], **changed)
    with pytest.raises(Error, match=message):
        place.read(**{file: content})


@pytest.mark.parametrize("file", ["model", "optimizer"])
@pytest.mark.parametrize("change", ["nan", "infinite", "type", "shape"])
def test_tampered_values(place: Place, file: str, change: str) -> None:
    """If this fails, a number that is none goes on through the training, unseen; or a shape that
    can be stretched to the right one is."""
    from safetensors.torch import load

    content = place.saved[f"{file}.safetensors"]
    name, value = next((k, v) for k, v in load(content).items() if v.ndim == 4)
    new = {
        "nan": torch.where(value == value.flatten()[0], float("nan"), value),
        "infinite": torch.full_like(value, float("inf")),
        "type": value.double(),
        "shape": value[:1, :1],
    }[change]
    with pytest.raises(Error, match="not finite|of another model|weights are not of"):
        place.read(**{file: tensors_with(content, **{name: new})})


VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**63, 10**40, 0.5, -1e300, "", "x", "\x1b[2J", [], [[]], [1, 2], {},
    {"a": 1}, [None] * 3, ["1"] * 3, {"step": 1},
]  # fmt: skip


def mutate(value: Any) -> Any:
    """Another value somewhere in a JSON value."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        kind = random.random()
        if kind < 0.08:
            return {name: entry for name, entry in value.items() if name != key}
        if kind < 0.16:
            return {**value, random.choice(["", "x", "step ", key.upper()]): value[key]}
        return {**value, key: mutate(value[key])}
    if isinstance(value, list) and value and random.random() < 0.7:
        place = random.randrange(len(value))
        return [*value[:place], mutate(value[place]), *value[place + 1 :]]
    return random.choice(VALUES)


def flip(content: bytes, most: int) -> bytes:
    """Other bytes in the first ``most``: a safetensors file's header and the first numbers."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 3)):
        place = random.randrange(min(most, len(changed)))
        if random.random() < 0.7:
            changed[place] = random.choice([random.randrange(256), *b'0129{}[]",-'])
        else:
            del changed[place : place + random.randint(1, 8)]
    if random.random() < 0.3:
        size = len(changed) - 8 - random.randint(0, 64)
        changed[:8] = struct.pack("<Q", max(size, 0))
    return bytes(changed)


def test_mutated_state(place: Place) -> None:
    """If this fails, some damage of ``state.json`` is a traceback."""
    random.seed(16)
    state = json.loads(place.saved["state.json"])
    taken = 0
    for _ in range(250):
        try:
            place.read(state=json.dumps(mutate(state)).encode())
            taken += 1
        except Error as error:
            assert str(error).isprintable()
    assert 0 < taken < 125  # options that change nothing may differ


@pytest.mark.parametrize("file", ["model", "optimizer"])
def test_mutated_tensors(place: Place, file: str) -> None:
    """If this fails, some damage of a file of tensors is a traceback."""
    random.seed(16)
    content = place.saved[f"{file}.safetensors"]
    header = 8 + int.from_bytes(content[:8], "little")
    refused = 0
    for _ in range(150):
        try:
            place.read(**{file: flip(content, header + 64)})
        except Error:
            refused += 1
    assert refused > 75


def test_mutated_masks(tmp_path: Path) -> None:
    """If this fails, some damage of a file of masks is a traceback, or masks the wrong layer."""
    random.seed(16)
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Conv2d(3, 2, 1))
    file = tmp_path / "masks"
    save_masks({"0": torch.eye(3, 2).bool(), "1": torch.ones(2, 3).bool()}, file)
    content = file.read_bytes()
    refused = 0
    for _ in range(200):
        file.write_bytes(flip(content, len(content)))
        try:
            attach_masks(model, load_masks(file))
        except Error:
            refused += 1
    assert refused > 100


def test_resuming_removes_older_ones(
    saved: dict[str, bytes], dataset: Dataset, tmp_path: Path
) -> None:
    """If this fails, a run that was killed between writing its last checkpoint and removing the one
    before it leaves both for ever."""
    for number in (3, 4, 7):
        (tmp_path / f"checkpoint-{number:06d}").mkdir()
        for name, content in saved.items():
            if number != 7:
                (tmp_path / f"checkpoint-{number:06d}" / name).write_bytes(content)
    again = trainer(dataset)
    again.folder = tmp_path
    again.restore(load_checkpoint(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-000004", "checkpoint-000007",
    ]  # fmt: skip
    assert save_checkpoint(tmp_path, again.checkpoint()).name == "checkpoint-000008"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000008"]
