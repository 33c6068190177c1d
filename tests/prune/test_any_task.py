"""Networks that are no classifiers: any outputs, any targets, any loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from prune.networks import lived_in
from torch import nn
from torch.nn import functional

import kernelprune as kp
from kernelprune.errors import Error
from kernelprune.prune.batches import labelled
from kernelprune.prune.targets import first_of, tensors_of

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(3))
IMAGES = [X[:4], X[4:]]
MAPS = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(4))


class Heads(nn.Module):
    """A trunk with a map and a vector at its end; ``form`` says how it gives them."""

    def __init__(self, form: str):
        super().__init__()
        self.form = form
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(8)
        self.map = nn.Conv2d(8, 2, 1)
        self.vector = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.conv2(x)))
        found, vector = self.map(x), self.vector(x.mean((2, 3)))
        forms = {"map": found, "tuple": (found, vector), "nested": (found, [vector])}
        return forms.get(self.form, {"map": found, "vector": vector})


def heads(form: str) -> nn.Module:
    torch.manual_seed(1)
    return lived_in(Heads(form)).float()


def distance(outputs: Any, targets: Any) -> torch.Tensor:
    """Of the first output to the maps."""
    found = next(iter(tensors_of(outputs)))
    return functional.mse_loss(found, next(iter(tensors_of(targets))))


FORMS = ["map", "tuple", "nested", "dict"]


@pytest.mark.parametrize(
    ("form", "granularity", "kept"),
    [*((form, "channel", 4) for form in FORMS),
     # What is dropped where does not see the form of the outputs.
     *(pytest.param(form, "kernel", 32, marks=() if form == "dict" else pytest.mark.extensive)
       for form in FORMS)],
)  # fmt: skip
def test_reconstruction_takes_any_outputs(form: str, granularity: str, kept: int) -> None:
    """If this fails, a detector or a segmenter cannot be pruned by what its layers compute: the
    outputs are looked at though only the reconstruction counts, or labels are asked for."""
    options: dict[str, Any] = {"discrimination": 0, "channels_per_step": 2}
    pruner = kp.DiscriminationAware(heads(form), X, IMAGES, granularity=granularity, **options)
    assert len(pruner.stages) == 1
    assert [layer.name for layer in pruner.chosen][0] == "conv2"
    pruner.prune(ratio=0.5)
    mask = pruner.masks()["conv2"]
    assert int((mask.any(0) if granularity == "channel" else mask).sum()) == kept


@pytest.mark.parametrize("form", FORMS)
def test_a_loss_of_any_outputs(form: str) -> None:
    """If this fails, discrimination needs scores of classes even without auxiliary classifiers."""
    targets = {"map": MAPS, "weights": [torch.ones(6)]} if form == "dict" else MAPS
    loader = [(X, targets)]
    pruner = kp.DiscriminationAware(heads(form), X, loader, losses=0, loss=distance)
    pruner.prune(ratio=0.5)
    assert int(pruner.masks()["conv2"].any(0).sum()) == 4
    kp.prune_connections(
        heads(form), density=0.5, criterion="taylor", loader=loader, loss=distance, x=X
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kp.DiscriminationAware(heads("dict"), X, [(X, MAPS)]).prune(ratio=0.5),
         ["the loss fails for outputs a dict of map: [6, 2, 8, 8] float32", "say loss="]),
        (lambda: kp.DiscriminationAware(heads("map"), X, IMAGES, losses=0).prune(ratio=0.5),
         ["must give (images, targets)"]),
        (lambda: kp.DiscriminationAware(
            heads("tuple"), X, [(X, MAPS)], losses=0).prune(ratio=0.5),
         ["the loss fails for outputs [6, 2, 8, 8] float32", "say loss="]),
        (lambda: kp.prune_connections(
            heads("map"), density=0.5, criterion="taylor", loader=[(X, MAPS)],
            loss=lambda outputs, targets: (outputs - targets).square()),
         ["the loss gives [6, 2, 8, 8] float32, not one number", "mean over the batch"]),
        (lambda: kp.prune_connections(
            heads("map"), density=0.5, criterion="taylor", loader=[(X, {"a": MAPS[:2]})],
            loss=distance),
         ["a batch of 6 images and 2 targets"]),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(call, words: list[str]) -> None:
    """If this fails, somebody with another task reads a traceback of torch's cross entropy."""
    with pytest.raises(Error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def test_targets_of_every_form_are_cut_with_their_images() -> None:
    """If this fails, the last batch has targets of other images, or of more than it has."""
    boxes = [{"boxes": torch.full((i, 4), float(i))} for i in range(6)]
    forms: list[Any] = [MAPS, (MAPS, torch.arange(6)), {"a": [MAPS]}, boxes, torch.arange(6)]
    for targets in forms:
        found = list(labelled([(X, targets)], 2, torch.device("cpu")))
        assert len(found) == 1 and len(found[0][0][0]) == 2
        cut = found[0][1]
        assert type(cut) is type(targets)
        if targets is boxes:
            assert [len(entry["boxes"]) for entry in cut] == [0, 1]
        else:
            pairs = zip(tensors_of(cut), tensors_of(targets), strict=True)
            assert all(torch.equal(part, whole[:2]) for part, whole in pairs)
    assert first_of(None, 2, 6) is None


def test_synaptic_strength_of_any_outputs() -> None:
    """If this fails, the strengths of a network without classes cannot be trained, measured or
    exported in a loop with a loss of one's own."""
    model = heads("tuple")
    pruner = kp.SynapticStrength(model, X)
    optimiser = torch.optim.SGD(pruner.parameter_groups(), lr=0.01)
    (distance(model(X), MAPS) + pruner.penalty()).backward()
    optimiser.step()
    pruner.measure(IMAGES)
    plan = pruner.prune(density=0.5)
    assert (plan.prunable_kept, plan.prunable_connections) == (32, 64)
    with torch.no_grad():
        assert len(pruner.finalize().eval()(X)) == 2
